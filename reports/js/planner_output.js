// What a reader takes from the planner and brings to it: the command line, the recipe, a recipe of before.
const PlannerOutput = (() => {
  const FILE = 'recipe.toml';
  const LARGEST = 1 << 20; // bytes, as the command line reads them

  /** Connect the section's buttons; `plan()` is the plan now, `replace(plan)` takes one that was read. */
  function create(section, data, { plan, replace }) {
    const [command, toml] = [Dom.one('.command', section), Dom.one('.toml', section)];
    const copied = Dom.one('.copied', section);
    const on = (name, act) => Dom.one(`[name="${name}"]`, section).addEventListener('click', act);
    on('copy-command', () => copy(command, 'The command is copied.', copied));
    on('copy-recipe', () => {
      Dom.one('.recipe', section).open = true; // the text must be in sight to be selected
      return copy(toml, 'The recipe is copied.', copied);
    });
    on('download-recipe', () => {
      download(toml.textContent);
      copied.textContent = `${FILE} is on its way.`;
    });
    reading(section, data, replace);
    return {
      show() {
        command.replaceChildren(...words(Recipe.command(data, plan())));
        toml.textContent = Recipe.toml(data, plan());
        copied.textContent = '';
      },
    };
  }

  /** A command line whose options stay whole where they fit: a browser would break a line inside of “--”. */
  function words(text) {
    return text.split(/ (?=--)/).flatMap((word, place) => [place ? ' ' : '', Dom.element('span', {}, word)]);
  }

  /** Copy an element's text; where the browser refuses, select it for the reader to copy. */
  async function copy(node, done, message) {
    try {
      await navigator.clipboard.writeText(node.textContent);
      message.textContent = done;
    } catch {
      getSelection().selectAllChildren(node);
      message.textContent = 'The browser does not let the page copy: the text is selected, press Ctrl+C or ⌘C.';
    }
  }

  function download(text) {
    const address = URL.createObjectURL(new Blob([text], { type: 'application/toml' }));
    Dom.element('a', { href: address, download: FILE }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000); // by then the browser has read it
  }

  function reading(section, data, replace) {
    const place = Dom.one('.read', section);
    const [file, text] = [Dom.one('[type="file"]', place), Dom.one('textarea', place)];
    const problem = Dom.one('.message', place);
    const take = (source) => {
      problem.textContent = '';
      const found = attempt(() => Recipe.read(data, source));
      if (found instanceof Error) problem.textContent = found.message;
      else replace(found);
      return found;
    };
    Dom.one('[name="read-recipe"]', place).addEventListener('click', () => take(text.value));
    file.addEventListener('change', async () => {
      const [chosen] = file.files;
      if (!chosen) return;
      if (chosen.size > LARGEST) {
        problem.textContent = `${chosen.name} has ${Format.plural(chosen.size, 'byte')}: that is no recipe.`;
        return;
      }
      text.value = await chosen.text();
      take(text.value);
      file.value = ''; // the same file may be chosen again, changed
    });
  }

  /** What a function gives, or the error that it throws. */
  function attempt(work) {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      return error;
    }
  }

  return { create };
})();
