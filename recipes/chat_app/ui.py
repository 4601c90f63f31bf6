"""The chat as a Gradio page on this machine: models side by side, answers as they are written.

The page is served at 127.0.0.1 only and loads nothing from elsewhere; neither Gradio nor the browser sends or stores
what is said. All text on it is escaped.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from html import escape
from itertools import groupby

# Gradio reads these when it is imported. The proxies of this machine have no business with its own page.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
    filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"])
)

import gradio as gr  # noqa: E402

from data_prep.common.errors import InputError  # noqa: E402
from recipes.chat_app.conversation import Conversation  # noqa: E402
from recipes.chat_app.models import ChatModel  # noqa: E402
from recipes.chat_app.tasks import ChatTask  # noqa: E402
from recipes.chat_app.text import Piece, printable  # noqa: E402

CSS = """
.chat { white-space: pre-wrap; overflow-wrap: anywhere; }
.chat h3, .chat .question { font-weight: bold; }
.chat .question { margin-top: 1em; }
.chat .reasoning { opacity: 0.55; }
.chat .note { font-style: italic; }
.chat .error { color: #b91c1c; }
.chat .answer { font-weight: bold; }
.chat td { border: 1px solid #9ca3af; padding: 0 0.5em; }
"""


def render(name: str, pieces: list[Piece]) -> str:
    """A model's side of the chat as HTML, in which all that was said is text."""
    parts = []
    for (kind, rows), group in groupby(pieces, key=lambda piece: (piece.kind, piece.rows)):
        tag = "span" if kind in ("text", "reasoning") else "div"
        parts.append(f'<{tag} class="{kind}">{escape("".join(piece.text for piece in group))}</{tag}>')
        if rows:
            cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
            parts.append("<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>")
    return f'<div class="chat"><h3>{escape(printable(name))}</h3>{"".join(parts)}</div>'


class Session:
    """What one open page says and remembers. ``stop`` ends the answer that is being written."""

    def __init__(self, models: list[ChatModel], task: ChatTask):
        self.conversations = [Conversation(model, task) for model in models]
        self.transcripts: list[list[Piece]] = [[] for _ in models]
        self.stop = threading.Event()

    def panes(self) -> list[str]:
        """Each model's side as HTML."""
        return [
            render(conversation.model.name, pieces)
            for conversation, pieces in zip(self.conversations, self.transcripts, strict=True)
        ]

    def ask(self, question: str) -> Iterator[list[str]]:
        """Ask the models one after the other; yields the panes whenever there is more to see."""
        self.stop.clear()
        for pieces in self.transcripts:
            pieces.append(Piece("question", question))
        yield self.panes()
        for conversation, pieces in zip(self.conversations, self.transcripts, strict=True):
            try:
                with closing(conversation.ask(question)) as reply:
                    for piece in reply:
                        if self.stop.is_set():
                            break
                        pieces.append(piece)
                        yield self.panes()
            except InputError as error:
                pieces.append(Piece("error", str(error)))
                yield self.panes()
            if self.stop.is_set():
                pieces.append(Piece("note", "(stopped)"))
                yield self.panes()
                return


def build(models: list[ChatModel], task: ChatTask, sessions: dict[str, Session]) -> gr.Blocks:
    """The page. Each browser tab has one of ``sessions``; the questions of all tabs are answered in turn."""

    def session(request: gr.Request) -> Session:
        return sessions.setdefault(request.session_hash, Session(models, task))

    def ask(question: str, request: gr.Request):
        if not question.strip():
            return
        cleared = ""
        for panes in session(request).ask(question.strip()):
            yield cleared, gr.Button(interactive=False), *panes
            cleared = gr.skip()  # the user may be writing the next question

    def stop(request: gr.Request) -> None:
        session(request).stop.set()

    def clear(request: gr.Request) -> list[str]:
        sessions[request.session_hash] = Session(models, task)
        return session(request).panes()

    def leave(request: gr.Request) -> None:
        if left := sessions.pop(request.session_hash, None):
            left.stop.set()

    in_turn = {"concurrency_id": "chat", "concurrency_limit": 1, "show_progress": "hidden", "api_visibility": "private"}
    at_once = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="Chat", analytics_enabled=False) as page:
        with gr.Row():
            panes = [gr.HTML(pane, max_height="70vh", autoscroll=True) for pane in Session(models, task).panes()]
        question = gr.Textbox(placeholder="Question", show_label=False, autofocus=True)
        with gr.Row():
            send, halt, forget = gr.Button("Send", variant="primary"), gr.Button("Stop"), gr.Button("Clear")
        # Gradio ignores a question (it stays in its box) while one is answered: the button shows when it does not.
        asked = gr.on([send.click, question.submit], ask, question, [question, send, *panes], **in_turn)
        asked.then(lambda: gr.Button(interactive=True), outputs=send, **at_once)
        halt.click(stop, **at_once)
        # The answer that is being written ends first, and shows nothing more once the panes are empty.
        forget.click(stop, **at_once).then(clear, outputs=panes, **in_turn)
        page.unload(leave)
    return page


def serve(models: list[ChatModel], task: ChatTask, host: str, port: int) -> None:
    """Serve the page at ``host`` until Ctrl-C."""
    sessions: dict[str, Session] = {}
    page = build(models, task, sessions)
    page.launch(
        prevent_thread_lock=True,
        share=False,
        server_name=host,
        server_port=port,
        quiet=True,
        footer_links=[],
        run_history=False,  # else the browser keeps what was said
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        css=CSS,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    print(f"Chat at http://{host}:{port} (this machine only); not for patients. Ctrl-C ends.", flush=True)
    page.block_thread()
    for session in sessions.values():  # else Python waits for their answers
        session.stop.set()
