"use strict";
// Buttons instead of anchors, and nothing stored: the page must work inside a sandboxed frame.
for (const button of document.querySelectorAll("[data-goto]")) {
  button.addEventListener("click", () => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.getElementById(button.dataset.goto).scrollIntoView({ behavior: still ? "auto" : "smooth" });
  });
}
const tip = document.getElementById("tip");
for (const chart of document.querySelectorAll("svg[data-tips]")) {
  const lines = chart.dataset.tips.split("|");
  const left = Number(chart.dataset.left);
  const right = Number(chart.dataset.right);
  let at = -1;
  const show = (index) => {
    at = Math.min(Math.max(index, 0), lines.length - 1);
    const box = chart.getBoundingClientRect();
    const x = left + ((at + 0.5) / lines.length) * (right - left);
    // Text from data: textContent never becomes markup.
    tip.textContent = lines[at];
    tip.hidden = false;
    const middle = box.left + (x / chart.viewBox.baseVal.width) * box.width;
    const start = Math.min(Math.max(8, middle - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${start}px`;
    tip.style.top = `${Math.max(4, box.top - tip.offsetHeight - 2)}px`;
  };
  const hide = () => { tip.hidden = true; };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
    show(Math.floor(((x - left) / (right - left)) * lines.length));
  });
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("blur", hide);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { show(at + step); event.preventDefault(); }
  });
}
