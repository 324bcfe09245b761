() => {
  const parse = colour => { const found = colour.match(/[\d.]+/g).map(Number); return found.length > 3 ? found : [...found, 1]; };
  // Relative luminance and contrast as WCAG 2.2 defines them.
  const linear = value => value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour[3] > 0.5) { return colour; }
    }
    return [255, 255, 255, 1];
  };
  const bad = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const text = walk.currentNode.textContent.trim();
    // The arrow of a lower bound is part of its mark: 3 to 1 is asked of those, and not measured here.
    if (!text || text === "\u2191" || element.closest("script, style, noscript, option")) { continue; }
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) { continue; }
    const style = getComputedStyle(element);
    const front = luminance(parse(element.closest("svg") ? style.fill : style.color));
    const back = luminance(behind(element));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) { bad.add(ratio.toFixed(2) + " " + element.tagName + ": " + text.slice(0, 40)); }
  }
  return [...bad];
}
