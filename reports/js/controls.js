// The switches of a section: what they say, where they stand at first, and their place in the page's address.
const Controls = (() => {
  const isPressed = (button) => button.getAttribute('aria-pressed') === 'true';

  function value(control) {
    if (control.type === 'checkbox') return control.checked;
    return control.type === 'button' ? isPressed(control) : control.value;
  }

  /** The values of controls by their names. */
  const values = (controls) => Object.fromEntries(controls.map((control) => [control.name, value(control)]));

  /** A control's value as text; '' where it stands as the page opens. */
  function text(control) {
    const [its, first] = [value(control), atFirst(control)];
    return its === first ? '' : String(its);
  }

  /** Put a control where `text` says; what it does not offer leaves it as the page opens. */
  function put(control, wanted) {
    const its = wanted === '' || !offers(control, wanted) ? atFirst(control) : wanted;
    const isOn = String(its) === 'true';
    if (control.type === 'checkbox') control.checked = isOn;
    else if (control.type === 'button') control.setAttribute('aria-pressed', isOn);
    else control.value = its;
  }

  function offers(control, wanted) {
    if (control.matches('select')) return [...control.options].some((option) => option.value === wanted);
    return !['checkbox', 'button'].includes(control.type) || wanted === 'true' || wanted === 'false';
  }

  function atFirst(control) {
    if (control.type === 'checkbox') return control.defaultChecked;
    if (control.type === 'button') return false;
    if (!control.matches('select')) return control.defaultValue;
    const [first] = control.options;
    return ([...control.options].find((option) => option.defaultSelected) ?? first)?.value;
  }

  /** Have the address hold where a control of the section `owner` stands; `then` follows a change by it. */
  function register(owner, control, then) {
    State.register(`${owner}.${control.name}`, {
      get: () => text(control),
      set: (wanted) => {
        put(control, wanted);
        then();
      },
    });
  }

  return { values, put, offers, isPressed, register };
})();
