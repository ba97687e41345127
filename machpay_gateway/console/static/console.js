// Copy buttons, and protection against double submission. Everything else works without JavaScript.
"use strict";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const label = button.firstChild;
  try {
    await navigator.clipboard.writeText(source.textContent);
    label.data = "Copied";
  } catch {
    // Plain HTTP has no clipboard API: select the text, so that the user can copy it.
    getSelection().selectAllChildren(source);
    label.data = "Press Ctrl+C";
  }
  setTimeout(() => { label.data = "Copy"; }, 2000);
});

// A second click, or Enter held down, does not submit again. Going back to the page re-enables the form.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-once]")) return;
  if (form.dataset.submitted) event.preventDefault();
  form.dataset.submitted = "yes";
  setTimeout(() => form.querySelectorAll("button[type=submit]").forEach((button) => { button.disabled = true; }));
});
addEventListener("pageshow", () => {
  document.querySelectorAll("[data-once]").forEach((form) => {
    delete form.dataset.submitted;
    form.querySelectorAll("button[type=submit]").forEach((button) => { button.disabled = false; });
  });
});
