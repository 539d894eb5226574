// Before the first paint, so that a page chosen dark never flashes light.
(function () {
  "use strict";
  var chosen = null;
  try { chosen = localStorage.getItem("toft-theme"); } catch (error) { chosen = null; }
  if (chosen === "light" || chosen === "dark") { document.documentElement.dataset.theme = chosen; }
})();
