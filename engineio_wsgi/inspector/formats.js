// How the page writes numbers, and makes elements. Texts become text nodes: nothing that a client has sent is ever read as HTML.

/** An element with attributes and children; a child that is no element is text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set a text only if it differs, so that a selection survives. */
export function show(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export function count(number) {
  if (number < 10_000) return String(Math.round(number));
  if (number < 999_500) return `${short(number / 1000)} k`;
  return number < 999_500_000 ? `${short(number / 1e6)} M` : `${short(number / 1e9)} G`;
}

export function rate(number) {
  return number > 0 && number < 10 ? String(Number(number.toFixed(1))) : count(number);
}

export function bytes(number) {
  if (number === null) return "–";
  if (number < 1000) return `${number} B`;
  if (number < 999_500) return `${short(number / 1000)} kB`;
  return number < 999_500_000 ? `${short(number / 1e6)} MB` : `${short(number / 1e9)} GB`;
}

export function seconds(number) {
  if (number < 60) return `${Math.floor(number)} s`;
  if (number < 3600) return `${Math.floor(number / 60)} min`;
  if (number < 172_800) return `${Math.floor(number / 3600)} h ${Math.floor((number % 3600) / 60)} min`;
  return `${Math.floor(number / 86_400)} days`;
}

export function milliseconds(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1000) return `${short(number / 1000)} s`;
  return number >= 100 ? `${Math.round(number)} ms` : `${Number(number.toFixed(1))} ms`;
}

function short(number) {
  return String(number < 10 ? Number(number.toFixed(2)) : number < 100 ? Number(number.toFixed(1)) : Math.round(number));
}
