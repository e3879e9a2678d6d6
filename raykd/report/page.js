"use strict";
(async () => {
  const { palettes, plots } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // Text of a gzip file in base64.
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // A copy of a plot in which every colour `@name` is the palette's.
  function painted(value, palette) {
    if (typeof value === "string") return value.startsWith("@") ? palette[value.slice(1)] ?? value : value;
    if (Array.isArray(value)) return value.map((inner) => painted(inner, palette));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, inner]) => [k, painted(inner, palette)]));
  }

  function template(p) {
    const axis = {
      gridcolor: p.line, linecolor: p.line, zerolinecolor: p.quiet, zeroline: false, tickcolor: p.line,
      automargin: true, title: { standoff: 12 },
    };
    return { layout: {
      font: { family: "system-ui, sans-serif", size: 13, color: p.ink },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 12, t: 8, b: 8 }, xaxis: axis, yaxis: axis, hovermode: "closest",
      hoverlabel: { bgcolor: p.panel, bordercolor: p.line, font: { color: p.ink } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: p.faint, activecolor: p.quiet },
      legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom" },
    } };
  }

  const config = (plot) => ({
    responsive: true, displaylogo: false,
    displayModeBar: plot.layout.height > 300 && innerWidth > 600 ? "hover" : false,
    modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]],
  });

  // What lies in a closed fold has no size yet: it is drawn when it is opened. Paper is light and narrow.
  function draw(printing, within = document) {
    const palette = palettes[dark.matches && !printing ? "dark" : "light"];
    for (const div of within.querySelectorAll("[data-plot]")) {
      if (!div.offsetParent) continue;
      const plot = painted(plots[Number(div.dataset.plot)], palette);
      const width = printing ? Math.min(div.clientWidth, 660) : undefined;
      Plotly.react(div, plot.data, { ...plot.layout, width, template: template(palette) }, config(plot));
    }
  }

  try {
    const script = document.createElement("script");
    script.textContent = await unpack(document.getElementById("plotly").textContent);
    document.head.append(script);
    draw(false);
    dark.addEventListener("change", () => draw(false));
    addEventListener("beforeprint", () => draw(true));
    addEventListener("afterprint", () => draw(false));
    document.addEventListener("toggle", (event) => draw(false, event.target), true);
  } catch (problem) {
    const said = document.getElementById("no-figures");
    said.textContent = `The figures could not be drawn (${problem}); all their numbers are in the tables.`;
    said.hidden = false;
  }
})();
