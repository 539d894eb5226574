// Installs a plugin from a file: uploads it under its digest, then tells the steps as the node tells them.
(function () {
  "use strict";
  var form = document.getElementById("upload");
  var steps = document.getElementById("steps");
  if (!form) { return; }

  function step(text) {
    var each = document.createElement("li");
    each.textContent = window.toft.visible(text);
    steps.appendChild(each);
  }
  async function digest(bytes) {
    var found = new Uint8Array(await window.crypto.subtle.digest("SHA-256", bytes));
    return Array.from(found, function (each) { return each.toString(16).padStart(2, "0"); }).join("");
  }
  function told(kind, accept) {
    return Object.assign(window.toft.headers(false), { "Content-Type": kind, Accept: accept });
  }
  // The lines of an answer as they come: each step is shown, the last one is returned.
  async function lines(answer) {
    var reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    var rest = "";
    for (;;) {
      var piece = await reader.read();
      var whole = (rest + (piece.value || "")).split("\n");
      rest = whole.pop();
      for (var line of whole.filter(Boolean)) {  // an empty one says that it goes on
        var each = JSON.parse(line);
        if (each.kind === "ended") { return each; }
        step(each.text);
      }
      if (piece.done) { return { error: { detail: "the connection broke, and the node has given it up" } }; }
    }
  }
  async function install(file) {
    var bytes = await file.arrayBuffer();
    var sum = await digest(bytes);
    step("uploading " + file.name);
    var answer = await fetch("/v1/artifacts/" + sum, {
      method: "PUT", headers: told("application/octet-stream", "application/json"), body: bytes,
    });
    if (!answer.ok) { return window.toft.complaint(await answer.text(), answer.status); }
    answer = await fetch("/v1/plugins", {
      method: "POST",
      headers: told("application/json", "application/x-ndjson"),
      body: JSON.stringify({
        source: "artifact:" + sum + "/" + file.name.replace(/[^A-Za-z0-9._+!-]+/g, "-"),
        force: form.elements.force.checked,
        origin: "browser:" + window.toft.visible(file.name).slice(0, 400),
      }),
    });
    if (!answer.ok) { return window.toft.complaint(await answer.text(), answer.status); }
    var last = await lines(answer);
    return last.error ? window.toft.complaint(JSON.stringify(last.error), 0) : "";
  }
  form.addEventListener("submit", async function (event) {
    event.preventDefault();
    var button = form.querySelector("button");
    steps.textContent = "";
    if (!window.crypto.subtle) {
      window.toft.note("without TLS a browser reckons digests on the node's own machine only; use toft plugin add");
      return;
    }
    button.disabled = true;
    try {
      var wrong = await install(form.elements.file.files[0]);
      if (wrong) { window.toft.note(wrong); } else { step("installed"); form.reset(); }
    } catch (error) {
      window.toft.note("the node does not answer, or the file cannot be read");
    } finally {
      button.disabled = false;
    }
  });
})();
