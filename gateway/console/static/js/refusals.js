// What a problem document says, in the page's language where its code is known, with the server's own words.
const known = JSON.parse(document.getElementById("refused").textContent);

export function told(problem) {
  const fields = (problem.errors ?? []).filter((one) => !one.line).map((one) => `${one.field}: ${one.problem}`);
  const said = [problem.detail, ...fields, problem.do].filter(Boolean).join(" → ");
  return known[problem.code] ? `${known[problem.code]}（${said}）` : said;
}
