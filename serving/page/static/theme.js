// Light or dark: what the system prefers, unless the reader chose. It runs before the page is drawn, so that nothing flashes.
// Scripts that draw with the page's colours listen for the document's event "themechange".
(() => {
  const KEPT = "traitroute-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      return localStorage.getItem(KEPT) ?? "";
    } catch {
      return ""; // storage is forbidden in some browsers' private windows
    }
  }

  function keep(theme) {
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // It then holds until the page is left.
    }
  }

  function show(theme) {
    document.documentElement.dataset.theme = theme || (dark.matches ? "dark" : "light");
    document.dispatchEvent(new Event("themechange"));
  }

  show(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = chosen();
    select.addEventListener("change", () => {
      keep(select.value);
      show(select.value);
    });
    dark.addEventListener("change", () => show(select.value));
  });
})();
