// Makes and changes elements. What is the same already is not touched, so that nothing flickers, and
// neither selection nor focus is lost. Text goes in as text: there is no way from a string to markup.

import { visible } from './text.js';

export const find = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

export function show(element, wanted) {
  if (element.hidden === wanted) element.hidden = !wanted;
}

/** As many children as items, each made once and then brought up to date. */
export function repeat(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(create());
  items.forEach((item, at) => update(parent.children[at], item));
}

/**
 * A table. A column is `{ title, class, head }`; a row is its cells in order: text, or
 * `{ text, class, href, title }`. With `head`, a column's cells name their rows.
 */
export function fill(table, columns, rows, none) {
  if (table.tHead === null) {
    const titles = columns.map((column) => make('th', { scope: 'col', class: column.class }, column.title));
    table.append(make('thead', {}, make('tr', {}, ...titles)), make('tbody'));
  }
  const body = table.tBodies[0];
  if (rows.length === 0) {
    const said = body.querySelector('td.none');
    if (said === null || body.rows.length !== 1) {
      body.replaceChildren(make('tr', {}, make('td', { class: 'none', colspan: columns.length }, none)));
    } else {
      setText(said, none);
    }
    return;
  }
  if (body.querySelector('td.none')) body.replaceChildren();
  const create = () => make('tr', {}, ...columns.map((column) =>
    (column.head ? make('th', { scope: 'row' }) : make('td'))));
  repeat(body, rows, create, (row, cells) => {
    cells.forEach((cell, at) => {
      const { text, class: extra, href, title } = typeof cell === 'object' && cell !== null ? cell : { text: cell };
      const element = row.children[at];
      setClass(element, [columns[at].class, extra].filter(Boolean).join(' '));
      let inside = element;
      if (href) {
        inside = element.querySelector('a') ?? element.appendChild(make('a'));
        if (inside.getAttribute('href') !== href) inside.setAttribute('href', href);
      }
      setText(inside, visible(text ?? ''));
      if (title) element.setAttribute('title', visible(title));
      else element.removeAttribute('title');
    });
  });
}

/** Tiles: `{ title, value, about, class }` each. */
export function tiles(list, items) {
  const create = () => make('div', { class: 'tile' },
    make('dt'), make('dd', { class: 'value' }), make('dd', { class: 'about' }));
  repeat(list, items, create, (tile, item) => {
    const [title, value, about] = tile.children;
    setText(title, item.title);
    setText(value, visible(item.value));
    setClass(value, item.class ? `value ${item.class}` : 'value');
    setText(about, visible(item.about ?? ''));
  });
}
