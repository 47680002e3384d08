"use strict";
// Names the mark under the pointer, and raises a row in its plot when its legend entry is pressed.
// Everything it says stands in the table, too.
(() => {
  const root = document.documentElement;
  const tip = document.getElementById("tip");

  const show = (mark, x, y) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, x + 14), root.clientWidth - width - 8);
    const above = y - height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : y + 18}px`;
  };

  const nearest = (svg, x, y) => {
    let best = null;
    let distance = 26;
    for (const mark of svg.querySelectorAll("[data-tip]")) {
      const box = mark.getBoundingClientRect();
      const away = Math.hypot(
        Math.max(box.left - x, 0, x - box.right), Math.max(box.top - y, 0, y - box.bottom));
      if (away < distance) [best, distance] = [mark, away];
    }
    return best;
  };

  const raise = (figure, name) => {
    figure.classList.toggle("raised", name !== null);
    for (const series of figure.querySelectorAll(".series")) {
      series.classList.toggle("is-raised", series.dataset.series === name);
    }
  };

  for (const figure of document.querySelectorAll("figure.plot")) {
    let kept = null;
    for (const button of figure.querySelectorAll(".legend button")) {
      button.addEventListener("pointerenter", () => raise(figure, button.dataset.for));
      button.addEventListener("pointerleave", () => raise(figure, kept));
      button.addEventListener("click", () => {
        kept = kept === button.dataset.for ? null : button.dataset.for;
        for (const other of figure.querySelectorAll(".legend button")) {
          other.setAttribute("aria-pressed", String(other.dataset.for === kept));
        }
        raise(figure, kept);
      });
    }
    for (const svg of figure.querySelectorAll("svg[role=img]")) {
      const look = (event) => {
        const mark = nearest(svg, event.clientX, event.clientY);
        if (mark) show(mark, event.clientX, event.clientY);
        else tip.hidden = true;
      };
      svg.addEventListener("pointermove", look);
      svg.addEventListener("pointerdown", look);
      svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    }
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  root.dataset.ready = String(document.querySelectorAll("[data-tip]").length);
})();
