"use strict";
// Draws the figures of the page, and shows of figures and tables what the form says. No state but that of the form.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.querySelector(".filters");
  const plots = [...document.querySelectorAll(".plot")];
  const checked = (group) => new Set([...form.querySelectorAll(`input[name=${group}]:checked`)].map((box) => box.value));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    const axis = { gridcolor: value("--grid"), linecolor: value("--quiet"), tickcolor: value("--quiet"), zeroline: false };
    const under = (object, prefix) => Object.fromEntries(Object.entries(object).map(([key, entry]) => [`${prefix}.${key}`, entry]));
    return {
      "font.color": value("--ink"),
      "font.family": getComputedStyle(document.body).fontFamily,
      "font.size": 12.5,
      "hoverlabel.bgcolor": value("--raised"),
      "hoverlabel.bordercolor": value("--quiet"),
      "hoverlabel.font.color": value("--ink"),
      "modebar.bgcolor": "rgba(0,0,0,0)",
      "modebar.color": value("--quiet"),
      "modebar.activecolor": value("--ink"),
      ...under(axis, "xaxis"),
      ...under(axis, "yaxis"),
    };
  };

  const show = () => {
    const [methods, sources, noises] = ["method", "source", "noise"].map(checked);
    const shown = (of) => methods.has(of.method) && sources.has(of.source) && noises.has(of.noise);
    const work = form.querySelector("input[name=work]:checked")?.value;
    for (const plot of plots) {
      const noise = plot.closest("article").dataset.noise;
      const update = { visible: plot.data.map((trace) => shown({ ...data.looks[trace.name], noise })) };
      const switched = plot.dataset.kind === "work" && work && work !== plot.dataset.work;
      if (switched) {
        plot.dataset.work = work;
        update.x = plot.data.map((trace) => trace.meta.work[work] ?? []);
      }
      if (plot.closest("article").hidden) continue;
      Plotly.update(plot, update, switched ? { "xaxis.title.text": data.work[work], "xaxis.autorange": true } : {});
    }
    let [visible, all] = [0, 0];
    for (const row of document.querySelectorAll("tbody tr")) {
      const { method, source } = data.looks[row.dataset.name];
      row.hidden = !shown({ method, source, noise: row.closest("article").dataset.noise });
      if (row.closest("table").classList.contains("runs")) {
        visible += !row.hidden;
        all += 1;
      }
    }
    for (const article of document.querySelectorAll("article")) {
      const was = article.hidden;
      article.hidden = !noises.has(article.dataset.noise);
      if (was && !article.hidden) queueMicrotask(() => { show(); article.querySelectorAll(".plot").forEach((plot) => Plotly.Plots.resize(plot)); });
    }
    form.querySelector("output").textContent = all ? `${visible} of ${all} runs shown.` : "";
  };

  const zoom = (plot, factor) => {
    const update = {};
    for (const axis of ["xaxis", "yaxis"]) {
      const [low, high] = plot._fullLayout[axis].range;
      const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
      update[`${axis}.range`] = [middle - half, middle + half];
    }
    return Plotly.relayout(plot, update);
  };
  const reset = (plot) => Plotly.relayout(plot, { "xaxis.autorange": true, "yaxis.autorange": true });

  const sort = (button) => {
    const header = button.closest("th");
    const body = button.closest("table").tBodies[0];
    const rising = header.getAttribute("aria-sort") !== "ascending";
    const place = [...header.parentElement.children].indexOf(header);
    const key = (row) => row.children[place].dataset.value ?? row.children[place].textContent;
    const compare = (a, b) => (isNaN(a) || isNaN(b) || a === "" || b === "" ? String(a).localeCompare(String(b)) : a - b);
    for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => (rising ? 1 : -1) * compare(key(a), key(b))));
  };

  const summary = () => {
    const select = document.querySelector("select[name=at]");
    if (!select) return;
    const list = document.querySelector(".summary ul");
    list.replaceChildren(...data.best[select.value].map((sentence) => Object.assign(document.createElement("li"), { textContent: sentence })));
    for (const plot of plots.filter((plot) => plot.dataset.kind === "work")) {
      const y = Number(select.value);
      Plotly.relayout(plot, { shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { dash: "dash", width: 1, color: "#808080" } }] });
    }
  };

  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.set) {
      button.closest("fieldset").querySelectorAll("input").forEach((box) => { box.checked = button.dataset.set === "all"; });
      show();
    }
    if (button.dataset.zoom) {
      const plot = button.closest("figure").querySelector(".plot");
      button.dataset.zoom === "reset" ? reset(plot) : zoom(plot, Number(button.dataset.zoom));
    }
    if (button.classList.contains("sort")) sort(button);
  });
  document.querySelector("select[name=at]")?.addEventListener("change", summary);
  dark.addEventListener("change", () => plots.forEach((plot) => Plotly.relayout(plot, theme())));

  const ours = ["zoomIn2d", "zoomOut2d", "resetScale2d", "autoScale2d", "select2d", "lasso2d"]; // the page has buttons for what is left
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ours };
  Promise.all(plots.map((plot) => {
    const figure = data.figures[plot.id];
    return Plotly.newPlot(plot, figure.data, figure.layout, config).then(() => Plotly.relayout(plot, theme()));
  })).then(() => {
    summary();
    show();
    document.body.dataset.ready = "true";
  });
})();
