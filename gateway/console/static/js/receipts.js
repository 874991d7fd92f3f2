// Receipts: the whole chain of a store is verified when somebody asks; what is wrong is listed.
import { say } from "./console.js";

const button = document.getElementById("verify-chain");
const state = document.getElementById("chain-state");
const camel = (kind) => kind.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

function show(answer) {
  const { dataset } = button;
  const verdict = answer.ok ? dataset.whole.replace("{}", answer.receipts) : dataset.broken.replace("{}", answer.faults_total);
  const before = answer.before_the_chain ? ` ${dataset.before}${answer.before_the_chain}.` : "";
  const notice = state.querySelector("p");
  notice.textContent = `${verdict}${before} ${dataset.head}${answer.head}`;
  notice.className = `notice ${answer.ok ? "" : "bad"}`;
  const told = answer.faults.map((one) =>
    Object.assign(document.createElement("li"), { textContent: `${one.n || ""} ${one.id} ${state.dataset[camel(one.kind)]}: ${one.detail}` }),
  );
  state.querySelector("ul").replaceChildren(...told);
  state.hidden = false;
}

button?.addEventListener("click", async () => {
  button.disabled = true;
  state.querySelector("p").className = "notice";
  state.querySelector("p").textContent = button.dataset.working;
  state.querySelector("ul").replaceChildren();
  state.hidden = false;
  try {
    const response = await fetch(`/api/v1/stores/${encodeURIComponent(button.dataset.store)}/receipt-chain`);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    show(answer);
  } catch (error) {
    state.hidden = true;
    say(`${document.getElementById("toast").dataset.failed} (${error.message})`);
  } finally {
    button.disabled = false;
  }
});
