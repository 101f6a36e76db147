/* Small comforts of every page: menu, keys, copying, messages. Everything here has a way without JavaScript. */
"use strict";
(() => {
  const PLACES = { o: "overview", m: "models", d: "devices", g: "groups", r: "rollouts", j: "jobs", t: "telemetry" };
  const keysOn = () => localStorage.getItem("tinyfleet-keys") !== "off";
  let leader = 0;

  const typing = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;
  const go = (place) => document.querySelector(`[data-place="${place}"]`)?.click();

  const rows = () => [...document.querySelectorAll("[data-rows] tbody a[data-row], [data-rows] a[data-row]")];
  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    all[Math.min(Math.max(at + by, 0), all.length - 1)].focus();
  };

  const onKey = (event) => {
    if (!keysOn() || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const place = Date.now() - leader < 1500 ? PLACES[event.key] : undefined;
    leader = event.key === "g" && !place ? Date.now() : 0;
    if (place) go(place);
    else if (event.key === "?") document.querySelector("[data-place=help]")?.click();
    else if (event.key === "/") document.querySelector("[type=search]")?.focus();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else return;
    event.preventDefault();
  };

  const onClick = (event) => {
    const menu = event.target.closest("[data-menu]");
    if (menu) {
      const open = document.getElementById(menu.getAttribute("aria-controls")).classList.toggle("show");
      menu.setAttribute("aria-expanded", String(open));
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard?.writeText(document.getElementById(copy.dataset.copy).textContent.trim());
      copy.querySelector("[data-copy-text]").textContent = "Copied";
    }
    event.target.closest("[data-dismiss]")?.closest(".alert").remove();
  };

  const showKeySwitch = () => {
    const box = document.querySelector("[data-keys]");
    if (!box) return;
    box.closest("[hidden]")?.removeAttribute("hidden");
    box.checked = keysOn();
    box.addEventListener("change", () => localStorage.setItem("tinyfleet-keys", box.checked ? "on" : "off"));
  };

  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick);
  document.addEventListener("DOMContentLoaded", showKeySwitch);

  /* A filter form that changes is sent at once; without JavaScript it has its button. */
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-autosubmit]");
    if (form) form.requestSubmit();
  });
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (!button || event.target.method !== "post") return;
    // Not disabled at once: a disabled button would not send its own name and value.
    setTimeout(() => { button.disabled = true; button.classList.add("btn-loading"); }, 0);
  });
  addEventListener("pageshow", () => document.querySelectorAll(".btn-loading").forEach((button) => {
    button.disabled = false;
    button.classList.remove("btn-loading");
  }));
})();
