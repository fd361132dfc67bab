// Light or dark, and the language: kept in this browser. Loaded before the page is drawn, so that it does not flash.
"use strict";

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // a browser that keeps nothing
  }
}

if (["light", "dark"].includes(kept("octavo.theme"))) root.dataset.theme = kept("octavo.theme");

document.addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("octavo.theme", root.dataset.theme);
    } catch {
      // then it holds for this page only
    }
  });
  document.getElementById("language").addEventListener("change", (event) => {
    document.cookie = `octavo_language=${event.target.value}; path=/; max-age=31536000; SameSite=Lax`;
    location.reload();
  });
});
