"use strict";
// A page opened from a server without TLS has no clipboard: then the text is shown, selected, to copy by hand.
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const status = button.nextElementSibling, text = button.parentElement.nextElementSibling;
    try {
      await navigator.clipboard.writeText(text.value);
      status.textContent = "Copied.";
    } catch {
      text.hidden = false;
      text.focus();
      text.select();
      status.textContent = "Selected below: copy it with your keyboard.";
    }
  });
}
