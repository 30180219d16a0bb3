// The answer: a bar for each digit, and in words.

import { paint } from "./colours.js";

const percent = (share) => `${(100 * share).toFixed(share > 0.0995 ? 1 : 2)}\u00a0%`;
const SURE = 0.85; // as project/predict.py has it: docs/predict.md has the figures

/** The class that is answered. */
export const best = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

/** What a network says, in words. */
function inWords(network, probabilities) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const [first, second] = order.map((i) => network.digits[i]);
  if (probabilities[order[0]] >= SURE) return `${percent(probabilities[order[0]])} sure`;
  return `unsure: ${percent(probabilities[order[0]])} for ${first}, perhaps ${second}`;
}

/** Makes a bar for each digit; 1998's have the picture that F6 is compared with. */
export function buildBars(list, network) {
  list.className = network.kind;
  list.replaceChildren(...network.digits.map((digit, i) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.className = "map bar";
    Object.assign(button.dataset, { layer: "output", map: i });
    button.tabIndex = i === 0 ? 0 : -1;
    button.innerHTML = `<b>${digit}</b><canvas class="code"></canvas>
      <span class="track"><span class="fill"></span></span>
      <span class="share"></span><span class="distance" title="distance"></span>`;
    if (network.kind === "lenet5-1998") {
      const code = network.tensors.codes.subarray(84 * i, 84 * (i + 1));
      paint(button.querySelector("canvas"), code, 7, -1, 1, "ink");
    }
    item.append(button);
    return item;
  }));
}

/** Shows a network's answer, or null; a reason is why there is none, or why not to rely on it. */
export function showAnswer(verdict, list, network, result, reason) {
  const answer = result && best(result.probabilities);
  const [digit, words] = verdict.children;
  digit.textContent = result ? network.digits[answer] : "?";
  words.textContent = result
    ? reason ? `unsure: it ${reason}` : inWords(network, result.probabilities)
    : reason || "Nothing on the sheet yet";
  [...list.children].forEach((item, i) => {
    const share = result ? result.probabilities[i] : 0;
    item.classList.toggle("best", i === answer);
    item.querySelector(".fill").style.width = `${100 * share}%`;
    item.querySelector(".share").textContent = result ? percent(share) : "";
    const distance = result && network.kind === "lenet5-1998" ? result.outputs[i].toFixed(1) : "";
    item.querySelector(".distance").textContent = distance;
  });
}

/** A button for each of several digits of a picture, in the order of reading. */
export function showFound(group, answers, chosen, choose) {
  const buttons = answers.length > 1 ? answers.map((answer, i) => {
    const button = Object.assign(document.createElement("button"), { textContent: answer });
    button.setAttribute("aria-label", `Digit ${i + 1}, read as ${answer}`);
    button.setAttribute("aria-pressed", i === chosen);
    button.addEventListener("click", () => {
      choose(i);
      group.children[i].focus();
    });
    return button;
  }) : [];
  group.replaceChildren(...buttons);
}
