/* The theme button: light, dark, or as the system says. The first paint is set by the nonce script in base.html. */
"use strict";
(() => {
  const root = document.documentElement;
  const apply = (theme) => {
    root.dataset.bsTheme = theme;
    document.dispatchEvent(new CustomEvent("tinyfleet:theme"));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-toggle-theme]");
    if (!button) return;
    const theme = root.dataset.bsTheme === "dark" ? "light" : "dark";
    localStorage.setItem("tinyfleet-theme", theme);
    apply(theme);
    button.setAttribute("aria-pressed", String(theme === "dark"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (query) => {
    if (!localStorage.getItem("tinyfleet-theme")) apply(query.matches ? "dark" : "light");
  });
})();
