// Line charts over the last five minutes, on a canvas. The legend shows the latest values, or those under the pointer.
import { make, show } from "./formats.js";

const TOP = 8; // pixels above the highest line
const BOTTOM = 18; // pixels for the times
const LEFT = 48; // pixels for the scale's numbers

export class Chart {
  /**
   * @param lines what is drawn: [{name, colour}], each colour the name of one in the style sheet
   * @param format writes a value
   * @param least the lowest top of the scale
   */
  constructor(canvas, lines, format, least) {
    Object.assign(this, { canvas, lines, format, least, values: lines.map(() => []), period: 2, pointed: null });
    this.legend = canvas.closest("section").querySelector("output");
    for (const line of lines) {
      line.value = make("b");
      this.legend.append(make("span", { class: "key" }, make("i", { class: `dot ${line.colour}` }), `${line.name} `, line.value));
    }
    canvas.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** @param values for each line: its values, the oldest first; null where there is none. All have the same length. */
  update(values, period) {
    this.values = values;
    this.period = period;
    this.draw();
  }

  #point(x) {
    this.pointed = x;
    this.draw();
  }

  #top() {
    const wanted = Math.max(this.least, ...this.values.flat());
    const power = 10 ** Math.floor(Math.log10(wanted));
    return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= wanted);
  }

  draw() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return; // not laid out
    const ratio = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const top = this.#top();
    const places = Math.max(2, this.values[0].length);
    const x = (index) => LEFT + (index * (width - LEFT - 2)) / (places - 1);
    const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / top);
    this.#drawGrid(pen, width, height, top, y, colour);
    this.lines.forEach((line, number) => drawLine(pen, this.values[number], x, y, colour(line.colour), number === 0));
    const index = this.pointed === null ? places - 1 : Math.round(((this.pointed - LEFT) / (width - LEFT - 2)) * (places - 1));
    const chosen = Math.min(places - 1, Math.max(0, index));
    if (this.pointed !== null) drawPointer(pen, x(chosen), height, colour("quiet"));
    this.#tell(chosen);
  }

  #tell(index) {
    this.lines.forEach((line, number) => {
      const value = this.values[number][index];
      show(line.value, value === null || value === undefined ? "–" : this.format(value));
    });
  }

  #drawGrid(pen, width, height, top, y, colour) {
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("quiet");
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (const part of [0, 0.5, 1]) {
      const at = Math.round(y(top * part)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, at);
      pen.lineTo(width, at);
      pen.stroke();
      pen.fillText(this.format(top * part), 0, at);
    }
    const minutes = Math.round((this.values[0].length * this.period) / 60);
    pen.textBaseline = "alphabetic";
    pen.fillText(`${minutes} min ago`, LEFT, height - 3);
    pen.textAlign = "right";
    pen.fillText("now", width - 2, height - 3);
    pen.textAlign = "left";
  }
}

/** A line for each run of values without a gap; the first line has a shade below it. */
function drawLine(pen, values, x, y, colour, shaded) {
  for (const [begin, end] of runs(values)) {
    pen.beginPath();
    for (let index = begin; index <= end; index++) pen.lineTo(x(index), y(values[index]));
    if (begin === end) pen.lineTo(x(begin) + 1, y(values[begin]));
    pen.lineJoin = "round";
    pen.lineWidth = 1.75;
    pen.strokeStyle = pen.fillStyle = colour;
    pen.stroke();
    if (!shaded) continue;
    pen.lineTo(x(end), y(0));
    pen.lineTo(x(begin), y(0));
    pen.globalAlpha = 0.12;
    pen.fill();
    pen.globalAlpha = 1;
  }
  pen.lineWidth = 1;
}

function runs(values) {
  const found = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (found.length && found.at(-1)[1] === index - 1) found.at(-1)[1] = index;
    else found.push([index, index]);
  });
  return found;
}

function drawPointer(pen, x, height, colour) {
  pen.strokeStyle = colour;
  pen.beginPath();
  pen.moveTo(Math.round(x) + 0.5, TOP);
  pen.lineTo(Math.round(x) + 0.5, height - BOTTOM);
  pen.stroke();
}
