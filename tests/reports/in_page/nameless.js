() => {
  const bad = [];
  const say = (element, why) => bad.push(why + ": " + element.outerHTML.slice(0, 120));
  const all = (selector, fine, why) => document.querySelectorAll(selector).forEach(e => fine(e) || say(e, why));
  const referred = e => (e.getAttribute("aria-labelledby") || "").split(" ")
    .map(id => (id && document.getElementById(id) || {}).textContent || "").join("").trim();
  const named = e => e.getAttribute("aria-label") || referred(e);
  all("img", e => e.getAttribute("alt"), "picture without words");
  all("[role=img], [role=region], [role=group]", named, "nameless");
  all("button, a[href], summary", e => !e.checkVisibility() || named(e) || e.textContent.trim(), "nameless");
  all("input, select", e => named(e) || e.labels.length, "unlabelled");
  all("table", e => e.caption || named(e), "table without a name");
  all("section", referred, "section without a heading");
  all('a[href^="#"]', e => document.getElementById(e.getAttribute("href").slice(1).split("?")[0]), "leads nowhere");
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  return bad.concat(ids.filter((id, at) => ids.indexOf(id) !== at).map(id => "id twice: " + id));
}
