// What every page does by itself: keys, moments in the reader's time, buttons that ask the API, and one stream
// of events that tells htmx when to look again. No page needs a script of its own for these.
(function () {
  "use strict";
  var root = document.documentElement;

  // -- Moments ----------------------------------------------------------------------------------------------
  // How far the node's clock is ahead of the one here: what has lasted since a moment of the node is reckoned on
  // the node's. A few seconds are the way of the page, not a difference of the clocks.
  var said = document.querySelector('meta[name="toft-now"]');
  var ahead = said ? Number(said.content) * 1000 - Date.now() : 0;
  if (Math.abs(ahead) < 5000) { ahead = 0; }
  function now() { return Date.now() + ahead; }
  function two(number) { return String(number).padStart(2, "0"); }
  function written(date, form) {
    var clock = two(date.getHours()) + ":" + two(date.getMinutes()) + ":" + two(date.getSeconds());
    var day = date.getFullYear() + "-" + two(date.getMonth() + 1) + "-" + two(date.getDate());
    var isToday = new Date().toDateString() === date.toDateString();
    if (form === "clock") { return isToday ? clock : day.slice(5) + " " + clock.slice(0, 5); }
    return day + " " + clock;
  }
  function lasting(seconds) {
    if (seconds < 120) { return seconds.toFixed(seconds < 10 ? 1 : 0) + " s"; }
    if (seconds < 7200) { return (seconds / 60).toFixed(1) + " min"; }
    return seconds < 172800 ? (seconds / 3600).toFixed(1) + " h" : (seconds / 86400).toFixed(1) + " days";
  }
  function moments(within) {
    within.querySelectorAll("time[datetime]").forEach(function (each) {
      var date = new Date(each.getAttribute("datetime"));
      if (!isNaN(date)) { each.textContent = written(date, each.dataset.form); }
    });
    grow(within);
  }
  function grow(within) {
    within.querySelectorAll("[data-since]").forEach(function (each) {
      var began = new Date(each.dataset.since);
      if (!isNaN(began)) { each.textContent = lasting(Math.max((now() - began) / 1000, 0)); }
    });
  }

  // -- Notes ------------------------------------------------------------------------------------------------
  function note(text, isGood) {
    var each = document.createElement("div");
    each.className = isGood ? "note good" : "note";
    each.textContent = text;
    document.getElementById("notes").append(each);
    setTimeout(function () { each.remove(); }, isGood ? 3000 : 12000);
  }
  function complaint(text, status) {
    try {
      var told = JSON.parse(text);
      if (told.detail) { return told.detail + (told.hint ? " (next: " + told.hint + ")" : ""); }
    } catch (error) { /* no problem document: the status says it */ }
    return "the node answered with HTTP " + status;
  }

  // -- Asking the API ---------------------------------------------------------------------------------------
  function headers(hasBody) {
    var found = { Accept: "application/json" };
    var csrf = document.querySelector("meta[name=toft-csrf]").content;
    if (csrf) { found["X-Toft-CSRF"] = csrf; }
    if (hasBody) { found["Content-Type"] = "application/json"; }
    return found;
  }
  // `toft.ask(method, path, body)`: a promise of {ok, status, told}; whoever asks says what went wrong.
  async function ask(method, path, body) {
    var hasBody = body !== undefined;
    var answer = await fetch(path, {
      method: method, headers: headers(hasBody), body: hasBody ? JSON.stringify(body) : undefined,
    });
    var text = await answer.text();
    var told = null;
    try { told = JSON.parse(text); } catch (error) { told = null; }
    return { ok: answer.ok, status: answer.status, told: told, text: text };
  }
  // A page that is about to be left asks for nothing: what it shows may be what was just taken away.
  var leaving = false;
  async function press(button) {
    var sure = button.dataset.confirm;
    if (sure && !window.confirm(sure)) { return; }
    button.disabled = true;
    // What changes by itself may make another button of this one before the answer is here.
    var then = button.dataset.then, done = button.dataset.done;
    leaving = Boolean(then);
    try {
      var body = button.dataset.body === undefined ? undefined : JSON.parse(button.dataset.body);
      var answer = await ask(button.dataset.method || "POST", button.dataset.ask, body);
      if (!answer.ok) {
        leaving = false;
        note(complaint(answer.text, answer.status));
      } else if (then) {
        window.location.assign(then);
      } else {
        stir();
        if (done) { note(done, true); }
      }
    } catch (error) {
      leaving = false;
      note("the node does not answer; toft status says whether it runs");
    } finally {
      button.disabled = false;
    }
  }

  // -- Hearing of what happens ------------------------------------------------------------------------------
  var source = null;
  var cursor = null;
  function hear() {
    var path = document.body.dataset.live;
    if (!path || source) { return; }
    var after = cursor === null ? document.body.dataset.after : cursor;
    var url = new URL(path, window.location.href);
    if (after) { url.searchParams.set("after", after); }
    source = new EventSource(url);
    var wasOpen = false;
    source.onopen = function () {
      linked("live");
      // Between the page and its stream something may have happened, unless the page said where it stands.
      if (wasOpen || !after) { stir(); }
      wasOpen = true;
    };
    source.onerror = function () {
      linked("lost");
      if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(hear, 2000); }
    };
    ["state", "submitted", "sequence", "blocked", "unblocked", "reordered", "lost", "cancel"].forEach(function (type) {
      source.addEventListener(type, function (event) { told(type, event); });
    });
    source.addEventListener("progress", function (event) { told("progress", event); });
    source.addEventListener("log", function (event) {
      cursor = event.lastEventId;
      printed(JSON.parse(event.data));
    });
  }
  // Rows come as the node writes them, escaped; the oldest go when there are more than a page holds.
  function printed(data) {
    var log = document.querySelector("[data-log]");
    var isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    log.insertAdjacentHTML("beforeend", data.html);
    while (log.childElementCount > Number(log.dataset.log)) { log.firstElementChild.remove(); }
    moments(log);
    if (isAtEnd) { log.scrollTop = log.scrollHeight; }
  }
  function told(type, event) {
    if (event.lastEventId) { cursor = event.lastEventId; }
    var data = JSON.parse(event.data);
    if (type === "progress") {
      progress(data);
      window.htmx.trigger(document.body, "live:progress", data);
    } else {
      stir();
    }
  }
  // At once, then at most every 400 ms; the last change is never left out, as a plain throttle would.
  var stirred = 0;
  var stirring = null;
  function stir() {
    if (stirring !== null) { return; }
    stirring = setTimeout(function () {
      stirring = null;
      stirred = Date.now();
      window.htmx.trigger(document.body, "live:state");
    }, Math.max(stirred + 400 - Date.now(), 0));
  }
  function progress(data) {
    document.querySelectorAll('[data-progress="' + CSS.escape(data.job) + '"]').forEach(function (each) {
      var bar = each.querySelector("progress");
      if (typeof data.progress === "number") {
        bar.hidden = false;
        bar.value = data.progress;
        each.querySelector("[data-share]").textContent = Math.round(data.progress * 100) + " %";
      }
      if (typeof data.message === "string") { each.querySelector("[data-message]").textContent = visible(data.message); }
    });
  }
  // As `toft.kernel.visible` does it on the node.
  function visible(text) {
    return text.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]/g,
      function (each) { return "\\u" + each.charCodeAt(0).toString(16).padStart(4, "0"); });
  }
  function linked(how) { document.getElementById("link").dataset.link = how; }
  function deafen() {
    if (source) { source.close(); source = null; }
    document.getElementById("link").removeAttribute("data-link");
  }
  // A browser has six connections to a node; a tab that nobody looks at takes none of them.
  document.addEventListener("visibilitychange", function () {
    if (document.hidden) { deafen(); } else { hear(); stir(); }
  });
  window.addEventListener("pagehide", deafen);

  // -- Keys -------------------------------------------------------------------------------------------------
  var pending = "";
  function rows() { return Array.from(document.querySelectorAll("tr[data-row]")); }
  function move(by) {
    var all = rows();
    if (!all.length) { return; }
    var at = all.findIndex(function (each) { return each.classList.contains("chosen"); });
    var to = Math.min(Math.max(at + by, 0), all.length - 1);
    if (at >= 0) { all[at].classList.remove("chosen"); }
    all[to].classList.add("chosen");
    all[to].querySelector("a").focus({ preventScroll: true });
    all[to].scrollIntoView({ block: "nearest" });
  }
  function click(selector) {
    var found = document.querySelector(selector);
    if (found && !found.disabled) { found.click(); return true; }
    return false;
  }
  function theme() {
    var order = { undefined: "light", light: "dark", dark: undefined };
    var next = order[root.dataset.theme];
    if (next) { root.dataset.theme = next; } else { delete root.dataset.theme; }
    try { if (next) { localStorage.setItem("toft-theme", next); } else { localStorage.removeItem("toft-theme"); } }
    catch (error) { /* kept for this page alone */ }
    document.dispatchEvent(new CustomEvent("toft:theme"));
  }
  function seek() {
    var found = document.querySelector("[data-filter]");
    if (found) { found.focus(); found.select(); }
    return found;
  }
  var acts = {
    "/": function () { if (!seek()) { window.location.assign(document.body.dataset.find); } },
    "?": function () { document.getElementById("keys").showModal(); },
    j: function () { move(1); },
    k: function () { move(-1); },
    t: theme,
  };
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    var at = event.target;
    if (at.matches("input, select, textarea, [contenteditable]")) {
      if (event.key === "Escape") { at.blur(); }
      return;
    }
    if (document.querySelector("dialog[open]")) { return; }
    var key = event.key;
    var isDone = true;
    if (pending === "g") {
      pending = "";
      isDone = click('[data-go="' + CSS.escape(key) + '"]');
    } else if (key === "g") {
      pending = "g";
      setTimeout(function () { pending = ""; }, 1200);
    } else if (acts[key]) {
      acts[key]();
    } else {
      isDone = key.length === 1 && click('[data-key="' + CSS.escape(key) + '"]');
    }
    if (isDone) { event.preventDefault(); }
  });
  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-ask]");
    if (button) { event.preventDefault(); press(button); return; }
    if (event.target.closest("[data-keys]")) { document.getElementById("keys").showModal(); }
  });

  // -- htmx -------------------------------------------------------------------------------------------------
  document.body.addEventListener("htmx:configRequest", function (event) {
    var csrf = headers(false)["X-Toft-CSRF"];
    if (csrf) { event.detail.headers["X-Toft-CSRF"] = csrf; }
  });
  document.body.addEventListener("htmx:beforeRequest", function (event) {
    if (leaving) { event.preventDefault(); }
  });
  document.body.addEventListener("htmx:responseError", function (event) {
    if (event.detail.xhr.status === 401) { window.location.reload(); return; }
    note(complaint(event.detail.xhr.responseText, event.detail.xhr.status));
  });
  document.body.addEventListener("htmx:sendError", function () { linked("lost"); });
  // What a reader opened or chose is not in what the node sends; a swap leaves it, and whatever draws by itself.
  window.Idiomorph.defaults.callbacks.beforeAttributeUpdated = function (name, node) {
    return !(name === "open" && node.tagName === "DETAILS");
  };
  window.Idiomorph.defaults.callbacks.beforeNodeMorphed = function (old) {
    return !(old.dataset && old.dataset.keep !== undefined);
  };
  // What is looked at keeps its place: a log that stood at its end stays there, a chosen row stays chosen.
  var ends = new Set();
  var chosen = null;
  document.body.addEventListener("htmx:beforeSwap", function () {
    ends.clear();
    document.querySelectorAll("[data-tail]").forEach(function (each) {
      if (each.scrollHeight - each.scrollTop - each.clientHeight < 24) { ends.add(each.id); }
    });
    var row = document.querySelector("tr.chosen");
    chosen = row ? row.id : null;
  });
  document.body.addEventListener("htmx:afterSwap", function () {
    moments(document);
    tail();
    var row = chosen && document.getElementById(chosen);
    if (row) { row.classList.add("chosen"); }
  });
  function tail() {
    ends.forEach(function (id) { var each = document.getElementById(id); if (each) { each.scrollTop = each.scrollHeight; } });
  }

  document.querySelectorAll("[data-tail]").forEach(function (each) { each.scrollTop = each.scrollHeight; });
  moments(document);
  setInterval(function () { grow(document); }, 1000);
  hear();
  if (window.location.hash === "#filter") { seek(); }
  window.toft = { ask: ask, complaint: complaint, headers: headers, note: note, now: now, visible: visible };
  root.dataset.ready = "yes";
})();
