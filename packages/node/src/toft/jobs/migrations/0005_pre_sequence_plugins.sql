-- Whose steps a sequence has: what is said of it as a whole is for whoever may see all of them.
CREATE VIEW sequence_plugins AS
SELECT s.id AS sequence, step.value ->> 'plugin' AS plugin FROM sequences AS s, json_each(s.steps) AS step;
