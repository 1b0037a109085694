// One key for each common action: s step, r resume, p pause. Everything also works without it.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  const button = document.getElementById({ s: "step", r: "resume", p: "pause" }[event.key]);
  if (button) { event.preventDefault(); button.focus(); button.click(); }
});
// A disabled button would lose the focus while a run proceeds, so those are only marked as such.
document.addEventListener("click", (event) => {
  if (event.target.closest('button[aria-disabled="true"]')) event.preventDefault();
});
