"use strict";
const charts = [...document.querySelectorAll(".chart")];

function paint() {
  const style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue(name).trim();
  const ink = colour("--ink"), muted = colour("--muted"), paper = colour("--paper"), line = colour("--line");
  for (const chart of charts) {
    Plotly.relayout(chart, {
      "font.color": ink, "font.family": style.fontFamily, "font.size": 13, "paper_bgcolor": paper, "plot_bgcolor": paper,
      "xaxis.linecolor": muted, "xaxis.tickcolor": muted, "xaxis.gridcolor": line, "yaxis.gridcolor": line,
      "hoverlabel.bgcolor": paper, "hoverlabel.bordercolor": muted, "hoverlabel.font.color": ink,
    });
  }
}

for (const chart of charts) {
  const figure = JSON.parse(document.getElementById(chart.id + "-data").textContent);
  Plotly.newPlot(chart, figure.data, figure.layout, {responsive: true, displayModeBar: false, doubleClick: false});
}
paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

// Paper is white and narrower than the screen; plotly draws in pixels and would not notice. What is folded away is
// unfolded for paper where the page says so.
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details.printed:not([open])")];
  for (const details of unfolded) details.open = true;
  document.documentElement.classList.add("printing");
  paint();
  for (const chart of charts) Plotly.relayout(chart, {width: 660, height: Number(chart.dataset.height ?? 300)});
});
addEventListener("afterprint", () => {
  for (const details of unfolded) details.open = false;
  document.documentElement.classList.remove("printing");
  paint();
  for (const chart of charts) {
    Plotly.relayout(chart, {width: null, height: Number(chart.dataset.height) || null, autosize: true});
  }
});

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
