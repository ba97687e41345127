// Copying, and sending a form once. Without scripts every page works but for these.
"use strict";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const told = button.firstChild;
  try {
    await navigator.clipboard.writeText(source.textContent);
    told.data = "Copied";
  } catch {
    // No clipboard over plain HTTP: the text is marked, to be copied by hand.
    getSelection().selectAllChildren(source);
    told.data = "Press Ctrl+C";
  }
  setTimeout(() => { told.data = "Copy"; }, 2000);
});

// A second click, or Enter held down, sends nothing again; coming back to the page lets it be sent anew.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-once]")) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
  setTimeout(() => form.querySelectorAll("button[type=submit]").forEach((button) => { button.disabled = true; }));
});
addEventListener("pageshow", () => {
  document.querySelectorAll("[data-once]").forEach((form) => {
    delete form.dataset.sent;
    form.querySelectorAll("button[type=submit]").forEach((button) => { button.disabled = false; });
  });
});
