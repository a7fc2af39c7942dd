// Read TOML 1.0 that strangers wrote, as far as recipes go: tables, texts, numbers, flags, and lists of them.
// Stricter than it must be, never laxer than Python's tomllib: what it takes, that reads alike. Dates and lists
// of tables are nothing that a recipe holds, and are refused. Tables are Maps, so that no name of theirs is magic.
const Toml = (() => {
  const DEEPEST = 50; // brackets within brackets, and parts of a name
  const ESCAPES = { b: '\b', t: '\t', n: '\n', f: '\f', r: '\r', '"': '"', '\\': '\\' };
  const [BARE, SPACE] = [/[A-Za-z0-9_-]+/y, /[ \t]*/y];
  const COMMENT = /#[^\n\0-\x08\x0b-\x1f\x7f]*/y;
  const DATE = /\d{4}-\d\d-\d\d|\d\d:\d\d/y;
  const SPECIAL = /[+-]?(?:inf|nan)/y;
  const BASED = /0x[0-9A-Fa-f](?:_?[0-9A-Fa-f])*|0o[0-7](?:_?[0-7])*|0b[01](?:_?[01])*/y;
  const NUMBER = /[+-]?(?:0|[1-9](?:_?\d)*)(?:\.\d(?:_?\d)*)?(?:[eE][+-]?\d(?:_?\d)*)?/y;
  const CONTROL = /[\0-\x08\x0a-\x1f\x7f]/;

  /** The text is no TOML, or more than a recipe holds; the message says the line. */
  class TomlError extends Error {}

  /** The document as a Map; a table in it is a Map, a list an array. */
  function parse(text) {
    const reader = new Reader(text.replace(/^\ufeff/, '').replace(/\r\n/g, '\n'));
    return reader.document();
  }

  class Reader {
    #text;
    #at = 0;
    #headed = new Set(); // tables that a [heading] named, or dotted names before it
    #dotted = []; // tables that dotted names made since the last heading
    #frozen = new Set(); // tables in one line, to which nothing may be added
    #depth = 0;

    constructor(text) {
      this.#text = text;
    }

    document() {
      const root = new Map();
      let table = root;
      while (this.#lines() < this.#text.length) {
        if (this.#next('[')) table = this.#heading(root);
        else this.#pair(table);
        this.#skip();
        if (this.#at < this.#text.length && this.#text[this.#at] !== '\n') this.#fail('a line holds more than one thing');
      }
      return root;
    }

    #fail(what) {
      const line = this.#text.slice(0, this.#at).split('\n').length;
      throw new TomlError(`Line ${line} is no TOML: ${what}.`);
    }

    /** What the sticky pattern finds here, and step over it; null if it is not here. */
    #take(pattern) {
      pattern.lastIndex = this.#at;
      const found = pattern.exec(this.#text);
      if (!found) return null;
      this.#at = pattern.lastIndex;
      return found[0];
    }

    #next(sign) {
      if (!this.#text.startsWith(sign, this.#at)) return false;
      this.#at += sign.length;
      return true;
    }

    /** Step over spaces and a comment. */
    #skip() {
      this.#take(SPACE);
      this.#take(COMMENT);
    }

    /** Step over empty lines and comments; where that ends. */
    #lines() {
      do this.#skip(); while (this.#next('\n'));
      return this.#at;
    }

    #heading(root) {
      if (this.#next('[')) this.#fail('lists of tables are nothing that a recipe holds');
      const path = this.#name();
      if (!this.#next(']')) this.#fail('a heading ends with “]”');
      for (const made of this.#dotted.splice(0)) this.#headed.add(made);
      const table = path.reduce((place, part) => this.#inside(place, part), root);
      if (this.#headed.has(table)) this.#fail(`the table “${path.join('.')}” stands there before`);
      this.#headed.add(table);
      return table;
    }

    /** The table of that name inside another one, made if it is not there. */
    #inside(table, part) {
      if (!table.has(part)) table.set(part, new Map());
      const found = table.get(part);
      if (!(found instanceof Map) || this.#frozen.has(found)) this.#fail(`“${part}” has a value already`);
      return found;
    }

    /** One name = value. */
    #pair(table) {
      const path = this.#name();
      if (!this.#next('=')) this.#fail('a name is followed by “=”');
      this.#take(SPACE);
      let place = table;
      for (const part of path.slice(0, -1)) {
        place = this.#inside(place, part);
        if (this.#headed.has(place)) this.#fail(`the table “${part}” stands there before`);
        this.#dotted.push(place);
      }
      const name = path.at(-1);
      if (place.has(name)) this.#fail(`“${name}” stands there twice`);
      place.set(name, this.#value());
    }

    /** A name, of parts with points between. */
    #name() {
      const parts = [];
      do {
        this.#take(SPACE);
        if (parts.length >= DEEPEST) this.#fail(`a name has more than ${DEEPEST} parts`);
        parts.push(this.#part());
        this.#take(SPACE);
      } while (this.#next('.'));
      return parts;
    }

    #part() {
      const sign = this.#text[this.#at];
      if (sign === '"' || sign === "'") return this.#line();
      return this.#take(BARE) ?? this.#fail('a name is expected');
    }

    #value() {
      this.#depth += 1;
      if (this.#depth > DEEPEST) this.#fail('brackets lie too deep in each other');
      const found = this.#anyValue();
      this.#depth -= 1;
      return found;
    }

    #anyValue() {
      for (const quotes of ['"""', "'''"]) if (this.#next(quotes)) return this.#lineByLine(quotes);
      const sign = this.#text[this.#at];
      if (sign === '"' || sign === "'") return this.#line();
      if (this.#next('[')) return this.#list();
      if (this.#next('{')) return this.#inlineTable();
      if (this.#next('true')) return true;
      if (this.#next('false')) return false;
      DATE.lastIndex = this.#at;
      if (DATE.test(this.#text)) this.#fail('dates are nothing that a recipe holds');
      const special = this.#take(SPECIAL);
      if (special) return special.endsWith('nan') ? NaN : Number(special.replace('inf', 'Infinity'));
      const number = this.#take(BASED) ?? this.#take(NUMBER);
      if (number === null) this.#fail('a value is expected');
      return Number(number.replaceAll('_', ''));
    }

    #list() {
      const items = [];
      while (this.#lines() < this.#text.length) {
        if (this.#next(']')) return items;
        items.push(this.#value());
        this.#lines();
        if (this.#next(',')) continue;
        if (this.#next(']')) return items;
        break;
      }
      return this.#fail('a list ends with “]”, and has commas between its values');
    }

    #inlineTable() {
      const table = new Map();
      this.#take(SPACE);
      if (!this.#next('}')) {
        do {
          this.#pair(table);
          this.#take(SPACE);
        } while (this.#next(','));
        if (!this.#next('}')) this.#fail('a table in one line ends with “}”, and has commas between its values');
      }
      this.#freeze(table);
      return table;
    }

    /** Nothing may be added to a table, nor to those in it. */
    #freeze(table) {
      this.#frozen.add(table);
      for (const value of table.values()) if (value instanceof Map) this.#freeze(value);
    }

    /** A text in one line, in either kind of quotes. */
    #line() {
      const quote = this.#text[this.#at];
      this.#at += 1;
      return this.#until(quote, quote === '"', false);
    }

    /** A text in three quotes: its first line break does not count, and two quotes may end it. */
    #lineByLine(quotes) {
      this.#next('\n');
      return this.#until(quotes, quotes === '"""', true);
    }

    #until(end, hasEscapes, hasLines) {
      let found = '';
      for (;;) {
        if (this.#at >= this.#text.length) this.#fail('a text has no end');
        if (this.#next(end)) {
          for (let more = 0; hasLines && more < 2 && this.#next(end[0]); more += 1) found += end[0];
          return found;
        }
        const sign = this.#text[this.#at];
        this.#at += 1;
        if (sign === '\\' && hasEscapes) found += this.#escape(hasLines);
        else if (CONTROL.test(sign) && !(sign === '\n' && hasLines)) this.#fail('a text holds a control character');
        else found += sign;
      }
    }

    #escape(hasLines) {
      if (hasLines && this.#take(/[ \t]*\n[ \t\n]*/y) !== null) return '';
      const sign = this.#text[this.#at];
      this.#at += 1;
      if (Object.hasOwn(ESCAPES, sign)) return ESCAPES[sign];
      const digits = sign === 'u' ? this.#take(/[0-9A-Fa-f]{4}/y) : this.#take(/[0-9A-Fa-f]{8}/y);
      const code = parseInt(digits, 16);
      const isSign = (sign === 'u' || sign === 'U') && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
      return isSign ? String.fromCodePoint(code) : this.#fail('a text holds “\\” before what it does not go with');
    }
  }

  return { TomlError, parse };
})();
