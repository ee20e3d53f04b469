"""Shared parts of panels: style sheet, labels, messages, key guard, progress bar.

Message. JupyterLab shows an error of a callback in its log panel only: without a line in the panel
that says what went wrong, a click that fails looks like a click that does nothing.

Key guard. JupyterLab's command-mode shortcuts take arrow keys and letters from every focused
element that is no editor, lists, sliders and radio buttons among them, and would move between cells
instead. An attribute on the control itself keeps the keys there; on an element around it, it has no
effect, because the shortcut's selector is matched first on the control. The guard also gives screen
readers the controls' names: sliders have a label beside them that is not theirs. It says on top of
the panel that its kernel is gone: all controls stay on the page then, and none is heard. And it
tells which rows were chosen in a list by their ids: ipywidgets tells places, which mean other rows
once the kernel has another list.

Runs work beside the kernel's own thread, so that clicks are still heard, with a progress bar that
can cancel them.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import anywidget
import ipywidgets as w
import traitlets as t

from fxlab._html import escape
from fxlab._progress import Advance
from fxlab.errors import Cancelled, FxlabError

SHEET: Final = """
.fxlab-panel { gap: 6px; }
.fxlab-panel .widget-hbox > *, .fxlab-panel .widget-vbox > * { min-width: 0;
  max-width: calc(100% - 2 * var(--jp-widgets-margin, 2px)); }
.fxlab-panel .widget-hbox > .widget-box, .fxlab-panel .widget-vbox > .widget-box {
  max-width: 100%; }
.fxlab-panel .jupyter-button.mod-primary { background: #1565c0; color: #fff; }
.fxlab-list select { overflow-x: auto; min-width: 0; }
.fxlab-heads { margin-bottom: 0; height: auto; }
.fxlab-heads .widget-html-content { min-width: 0; overflow: hidden; }
.fxlab-heads pre { margin: 0; padding: 0 3px !important; white-space: pre; overflow: hidden; }
.fxlab-list select, .fxlab-list option, .fxlab-heads pre {
  font-family: var(--jp-code-font-family, monospace);
  font-size: var(--jp-code-font-size, 13px); }
.fxlab-soft, .fxlab-soft .widget-html-content {
  color: var(--jp-ui-font-color2, #666); line-height: 1.45; }
.fxlab-error { color: var(--jp-error-color1, #c62828); font-weight: 600; }
.fxlab-heading { font-weight: 600; font-size: var(--jp-ui-font-size2, 15px); }
.fxlab-panel table.fxlab { border-collapse: collapse; line-height: 1.35; }
.fxlab-panel table.fxlab tbody tr { border-top: 1px solid var(--jp-border-color2, #ddd); }
.fxlab-panel table.fxlab { margin-bottom: .6em; }
.fxlab-panel table.facts tbody tr { border: 0; }
.fxlab-panel table.facts th, .fxlab-panel table.facts td { padding: .05em .9em !important; }
.fxlab-panel table.facts th { color: var(--jp-ui-font-color2, #666); font-weight: 400 !important; }
.fxlab-above.widget-inline-hbox { flex-direction: column; align-items: stretch; height: auto; }
.fxlab-above.widget-inline-hbox .widget-label { width: auto; max-width: none; text-align: left;
  color: var(--jp-ui-font-color2, #666); height: 1.6em; line-height: 1.6em; }
.fxlab-above.widget-inline-hbox input, .fxlab-above.widget-inline-hbox select { flex: none;
  height: var(--jp-widgets-inline-height, 28px); }
.fxlab-moving, .fxlab-scrolled { overflow-x: auto; }
.fxlab-moving table.fxlab { font-variant-numeric: tabular-nums; }
.fxlab-moving table.fxlab th, .fxlab-moving table.fxlab td { padding: .25em .55em !important; }
.fxlab-wrong input { border-color: var(--jp-error-color1, #c62828) !important;
  box-shadow: 0 0 0 1px var(--jp-error-color1, #c62828); }
.fxlab-state { font-weight: 600; }
.fxlab-panel .fxlab-progress .widget-label { height: auto; white-space: normal; line-height: 1.45; }
.fxlab-panel pre { overflow-x: auto; max-height: 24em; line-height: 1.35; }
.fxlab-clicked .nsewdrag { cursor: pointer; }
.fxlab-panel summary { cursor: pointer; padding: .4em 0; }
"""


def style_sheet() -> w.HTML:
    """Return the style sheet as an invisible part of a panel."""
    return w.HTML(f"<style>{SHEET}</style>", layout={"display": "none"})


def heading(text: str) -> w.HTML:
    """Return a heading inside a panel."""
    return w.HTML(heading_html(text))


def heading_html(text: str) -> str:
    """Return a heading as HTML."""
    return f'<div class="fxlab-heading" role="heading" aria-level="3">{escape(text)}</div>'


def label_width(labels: Iterable[str]) -> dict[str, str]:
    """Return the style that gives a column of controls labels of one width, none cut off."""
    longest = max((len(label) for label in labels), default=0)
    return {"description_width": f"{longest + 1}ch"}


def label_above(control: Any, text: str, width: float) -> Any:  # noqa: ANN401
    """Return a narrow control, `width` rem wide, with its label above it and a tooltip."""
    control.add_class("fxlab-above")
    control.layout.width = f"{width}rem"
    control.tooltip = text
    return control


def beside(controls: Iterable[Any]) -> w.HBox:
    """Return controls in one row, which wraps where the page is narrow."""
    return w.HBox(list(controls), layout={"flex_flow": "row wrap", "grid_gap": "0 .4rem"})


def in_line(parts: Iterable[Any]) -> w.HBox:
    """Return buttons and what is said beside them in one row, which wraps where it must."""
    layout = {"align_items": "center", "grid_gap": "0 .6rem", "flex_flow": "row wrap"}
    return w.HBox(list(parts), layout=layout)


def with_help(control: Any, text: str) -> w.HBox:  # noqa: ANN401 - any ipywidgets control
    """Return a control with a short help line on its right; the line is its tooltip too."""
    control.tooltip = text
    control.layout.flex = "none"  # the line wraps, not the control
    return w.HBox([control, w.HTML(soft(text))], layout={"align_items": "center"})


def soft(text: str) -> str:
    """Return a text as HTML in the colour of what matters less."""
    return f'<span class="fxlab-soft">{escape(text)}</span>'


class QuietBox(w.VBox):
    """A panel that sets its own widgets without hearing them: `_showing` says so to its handlers.

    A list moves its selection by itself when its options change, and that is no choice.
    """

    _showing = False

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        self._showing = True
        try:
            yield
        finally:
            self._showing = False


class Message(w.HTML):
    """A line that is empty while all is well."""

    @property
    def failed(self) -> bool:
        """Return whether an error is shown."""
        return 'role="alert"' in self.value

    def say(self, text: str) -> None:
        """Show a plain sentence, spoken by screen readers when they are free."""
        self.value = text and f'<span role="status" class="fxlab-soft">{escape(text)}</span>'

    def fail(self, error: BaseException) -> None:
        """Show an error with its next step, in red and spoken at once; its traceback folded."""
        text = str(error) if isinstance(error, FxlabError) else _surprise(error)
        text = text.replace("the traceback above", "the traceback below")
        self.value = f'<div role="alert" class="fxlab-error">{escape(text)}</div>{_folded(error)}'

    def tell(self, asked: Callable[[], object], otherwise: str = "") -> None:
        """Show why a question has no answer; if it has one, say something else."""
        try:
            asked()
        except FxlabError as error:
            self.fail(error)
        else:
            self.say(otherwise)

    def clear(self) -> None:
        """Say nothing."""
        self.value = ""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Clear the line, run the block, and show its error here.

        Errors of fxlab end here: their message says all. Others go on to the log as well.
        """
        self.clear()
        try:
            yield
        except Cancelled as error:
            self.say(str(error) or "stopped")
        except FxlabError as error:
            self.fail(error)
        except Exception as error:
            self.fail(error)
            raise


def _surprise(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {error}. This was not foreseen; the traceback below shows where"
    )


def _folded(error: BaseException) -> str:
    """Return the traceback of what was raised at first, or nothing where fxlab's words say all."""
    cause: BaseException | None = error
    while isinstance(cause, FxlabError):
        cause = cause.__cause__
    if cause is None:
        return ""
    lines = "".join(traceback.format_exception(cause))
    return f"<details><summary>Traceback</summary><pre>{escape(lines)}</pre></details>"


_SCRIPT = r"""
const CONTROLS = "select, input[type=radio], [role=slider]";

const NAMED = "select, input, textarea, [role=slider], [contenteditable=true]";

const labelOf = (control) => control.closest(".widget-inline-hbox")
  ?.querySelector(".widget-label")?.textContent.trim();

function name(control) {
  const label = labelOf(control);
  if (label && !control.labels?.length && !control.hasAttribute("aria-label")) {
    control.setAttribute("aria-label", label);
  }
  const wrong = String(Boolean(control.closest(".fxlab-wrong")));
  if (control.tagName === "INPUT" && control.getAttribute("aria-invalid") !== wrong) {
    control.setAttribute("aria-invalid", wrong);
  }
}

// A kernel that died and came back tells no widget, but its connection does, and one that was shut
// down ends its connection; a page that is loaded without its kernel has widgets that are marked.
const OVER = /restarting|dead|terminating/;
const LOST = "The kernel was restarted or has ended, and hears no click and no zoom here: "
  + "run this cell again";

function tell(panel, over) {
  const line = panel.querySelector(":scope > .fxlab-lost");
  const lost = over || panel.matches(".jupyter-widgets-disconnected");
  if (!lost) line?.remove();
  if (!lost || line || panel.parentElement?.closest(".fxlab-panel")) return;
  const said = document.createElement("div");
  said.className = "fxlab-error fxlab-lost";
  said.setAttribute("role", "alert");
  said.textContent = LOST;
  panel.prepend(said);
}

function render({ model, el }) {
  el.style.display = "none";
  let watch;
  let over = false;
  let mark = () => {};
  const hear = (_, status) => {
    over ||= OVER.test(status);
    mark();
  };
  const end = () => hear(null, "dead");
  const kernel = model.widget_manager?.kernel;
  kernel?.statusChanged?.connect(hear);
  kernel?.disposed?.connect(end);
  // Told before the list itself tells places, for it hears of the event later.
  const choose = ({ target }) => {
    const list = labelOf(target);
    if (!model.get("lists").includes(list)) return;
    const ids = [...target.selectedOptions].map((row) => row.text.trim().split(/\s/)[0]);
    model.send({ event: "choice", list, ids });
  };
  let waiting, panel;
  const start = () => {
    panel = el.isConnected && (el.closest(".widget-vbox") ?? el.parentElement);
    if (!panel) {
      waiting = requestAnimationFrame(start);
      return;
    }
    mark = () => {
      tell(panel, over);
      panel.querySelectorAll(CONTROLS)
        .forEach((control) => control.setAttribute("data-lm-suppress-shortcuts", "true"));
      panel.querySelectorAll(NAMED).forEach(name);
    };
    mark();
    panel.addEventListener("change", choose, true);
    watch = new MutationObserver(mark);
    watch.observe(panel, {
      childList: true, subtree: true, attributes: true, attributeFilter: ["class"],
    });
  };
  start();
  return () => {
    cancelAnimationFrame(waiting);
    watch?.disconnect();
    if (panel) panel.removeEventListener("change", choose, true);
    kernel?.statusChanged?.disconnect(hear);
    kernel?.disposed?.disconnect(end);
  };
}

export default { render };
"""


class _IdRows(w.Widget):
    """Rows that begin with their ids: what a page chose is told by ids, before the places come.

    Parameters
    ----------
    on_ids
        Gets what was chosen, listed still or not; unless given, what is listed still is chosen.
    """

    _is_told = False

    def __init__(
        self,
        *,
        on_ids: Callable[[tuple[str, ...]], object] | None = None,
        **given: Any,  # noqa: ANN401 - of ipywidgets
    ) -> None:
        self._on_ids = on_ids or self._choose_listed
        super().__init__(options=[], **given)

    def tell_ids(self, ids: tuple[str, ...]) -> None:
        """Choose; the places of the same choice, which follow, are those of what is chosen then."""
        self._is_told = True
        self._on_ids(ids)

    def _choose_listed(self, ids: tuple[str, ...]) -> None:
        found = [place for place, label in enumerate(self._options_labels)
                 if label.split()[0] in ids]  # fmt: skip
        self.index = found if isinstance(self, w.SelectMultiple) else next(iter(found), None)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what a page sends; places beyond the list, of a longer one, choose nothing."""
        if "index" in sync_data:
            given, there = sync_data["index"], range(len(self._options_labels))
            if self._is_told:
                given = self.index
            elif isinstance(self, w.SelectMultiple):
                given = [place for place in given if place in there]
            elif given not in there:
                given = self.index
            self._is_told = False
            sync_data = sync_data | {"index": given}
        super().set_state(sync_data)


class IdList(_IdRows, w.Select):
    """A list in which one row is chosen, by its id."""


class IdLists(_IdRows, w.SelectMultiple):
    """A list in which rows are chosen, by their ids."""


class KeyGuard(anywidget.AnyWidget):
    """An invisible neighbour: put it last into a VBox, and the lists in that box keep their keys.

    Controls that join the box later are guarded too. In a panel it says when the kernel is gone.

    Parameters
    ----------
    *lists
        Those of `IdList` and `IdLists` in the panel, which hear from it what is chosen.
    """

    _esm = _SCRIPT
    lists = t.List(t.Unicode()).tag(sync=True)

    def __init__(self, *lists: _IdRows) -> None:
        self._lists = {one.description: one for one in lists}
        super().__init__(lists=list(self._lists))
        self.on_msg(lambda _widget, content, _buffers: self.handle(content))

    def handle(self, content: dict[str, Any]) -> None:
        """Hand a choice on to its list."""
        self._lists[content["list"]].tell_ids(tuple(content["ids"]))


_PAUSE: Final = 0.05
"""Seconds between two messages to the browser; a bar that moves 20 times a second is smooth."""


class ProgressBar(w.HBox):
    """A bar, a line of text and a Cancel button; call it with (share, text).

    Pass what `start` returns as ``progress=`` to a function that runs in another thread: the kernel
    handles clicks only while its own thread is free. After a click on Cancel the next call raises
    `Cancelled`.
    """

    def __init__(self) -> None:
        self.bar = w.FloatProgress(min=0.0, max=1.0, description="Progress")
        self.text = w.Label()
        self.cancel = w.Button(description="Cancel", icon="stop", disabled=True)
        self.cancel.on_click(self._on_cancel)
        self._cancelled = threading.Event()
        self._shown_at = 0.0
        super().__init__([self.bar, self.cancel, self.text])
        self.add_class("fxlab-progress")
        self.layout.flex_flow, self.layout.align_items = "row wrap", "center"
        self.layout.visibility = "hidden"

    def start(self) -> Advance:
        """Show an empty bar that can be cancelled; return the progress of this one run."""
        self._cancelled = cancelled = threading.Event()
        self._shown_at = 0.0
        self.bar.bar_style = ""
        self.bar.value, self.text.value = 0.0, "starting"
        self.cancel.disabled = False
        self.layout.visibility = "visible"
        return lambda share, text: self._advance(cancelled, share, text)

    @property
    def is_cancelled(self) -> bool:
        """Return whether Cancel was clicked since the last start."""
        return self._cancelled.is_set()

    def finish(self, text: str, *, failed: bool = False) -> None:
        """Show how the work ended."""
        self.cancel.disabled = True
        self.bar.value = self.bar.value if failed else 1.0  # its last step told of less
        self.bar.bar_style = "danger" if failed else "success"
        self.text.value = text

    def put_away(self) -> None:
        """Hide a bar whose work has ended: what it tells belongs to something else."""
        if self.bar.bar_style:
            self.layout.visibility = "hidden"

    def give_up(self) -> None:
        """Show that the work did not come to its end, and whether that was asked for."""
        self.finish("cancelled" if self.is_cancelled else "not finished", failed=True)

    def __call__(self, share: float, text: str = "") -> None:
        """Show the share done (0 to 1) and a text.

        Raises
        ------
        Cancelled
            After a click on Cancel.
        """
        self._advance(self._cancelled, share, text)

    def check(self) -> None:
        """Raise `Cancelled` after a click on Cancel."""
        _check(self._cancelled)

    def _advance(self, cancelled: threading.Event, share: float, text: str) -> None:
        _check(cancelled)
        now = time.monotonic()
        if share >= 1.0 or now - self._shown_at >= _PAUSE:
            self._shown_at = now
            self.bar.value = min(max(share, 0.0), 1.0)
            self.text.value = text

    def _on_cancel(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self._cancelled.set()
        self.cancel.disabled = True
        self.text.value = "stopping"


def _check(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Cancelled(
            "cancelled: stopped before the end, and nothing of this run is kept; what ended "
            "before stays as it was; press Run to start again"
        )


_ASK_SECONDS: Final = 0.1

Outcome = TypeVar("Outcome")


def run_aside(work: Callable[[], Outcome], done: Callable[[Callable[[], Outcome]], object]) -> None:
    """Run `work` in a thread, then `done` where this was called from.

    Parameters
    ----------
    work
        Takes nothing; may touch no widget but a `ProgressBar`.
    done
        Gets a function that returns the outcome of `work`, or raises its error.

    Notes
    -----
    Without a running event loop (plain Python, a test) there are no clicks to hear: both run one
    after the other before this returns.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        done(_finished(work).result)
        return
    # The context carries which cell the messages of a widget belong to.
    context = contextvars.copy_context()

    def aside() -> None:
        finished = _finished(lambda: context.run(work))
        with suppress(RuntimeError):  # the loop is closed: nothing waits for the outcome
            loop.call_soon_threadsafe(done, finished.result, context=context)

    # No pool: a replay that is paused for hours must keep neither others nor an exit waiting.
    threading.Thread(target=aside, name="fxlab-panel", daemon=True).start()


def unless_cancelled(work: Callable[[], Outcome], ask: Callable[[], object]) -> Outcome:
    """Return the outcome of `work`, or raise what `ask` raises, within a fraction of a second.

    Parameters
    ----------
    work
        Runs in a thread of its own. Nobody can interrupt the code of others, such as a strategy's
        function: what has begun ends by itself, and its outcome is dropped.
    ask
        Called now and then; it may raise `Cancelled`.
    """
    outcome: Future[Outcome] = Future()
    _start("fxlab-work", _finish, outcome, work)
    while not wait([outcome], _ASK_SECONDS).done:
        ask()
    return outcome.result()


class PeriodicTimer:
    """Calls a function at a steady pace in a thread of its own, until it is stopped.

    Pictures go on moving while the kernel's own thread is busy with a cell.

    Parameters
    ----------
    beat
        Takes nothing and returns whether it was the last time.
    seconds
        Between two calls.
    failed
        Called with the error of a call; once, until a call is well again or another one comes. The
        calls go on.
    recovered
        Called after the first call that is well again.
    told
        The error, as `repr` has it, that was shown before the first call.
    """

    def __init__(
        self,
        beat: Callable[[], bool],
        seconds: float,
        failed: Callable[[Exception], object],
        recovered: Callable[[], object],
        told: str = "",
    ) -> None:
        self._over = threading.Event()
        self._failed, self._recovered = failed, recovered
        _start("fxlab-pulse", self._run, beat, seconds, told)

    def stop(self) -> None:
        """Call no more; a call that has begun ends."""
        self._over.set()

    def _run(self, beat: Callable[[], bool], seconds: float, told: str) -> None:
        while not self._over.wait(seconds):
            try:
                if beat():
                    return
            except Exception as error:  # noqa: BLE001 - shown; the thread must not end unheard
                if repr(error) != told:
                    self._failed(error)
                told = repr(error)
                continue
            if told:
                self._recovered()
            told = ""


def _start(name: str, work: Callable[..., object], *given: object) -> None:
    """Start a thread whose widget messages belong to the cell of this one."""
    arguments = (work, *given)
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=arguments, name=name, daemon=True).start()


def _finished(work: Callable[[], Outcome]) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    _finish(future, work)
    return future


def _finish(future: Future[Outcome], work: Callable[[], Outcome]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - handed on: `done` raises it
        future.set_exception(error)
