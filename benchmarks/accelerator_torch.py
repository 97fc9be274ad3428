"""PyTorch's contenders of ``benchmarks.accelerator``, in processes beside JAX's.

One process a network and dtype: its ``torch.compile`` runs while JAX compiles, and its memory is
its own. It is told a case and a contender a line, and answers with seconds and bytes.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.accelerator import COMPILED, EAGER, Case, architecture, batch, build


class Contender(NamedTuple):
    """One form of a case in a process of PyTorch.

    Attributes:
      peer: the process.
      place: of the case, in the order that the process was given them.
      name: of the form.
      output: logits or loss of its first call, float32.
    """

    peer: "Peer"
    place: int
    name: str
    output: Any

    def seconds(self) -> float:
        """Let it compute once; return how long it took."""
        return float(self.peer.ask([self.place, self.name])["seconds"])

    def memory_bytes(self) -> int | None:
        """Return the most that was allocated at once during its last call; None on CPU."""
        found = self.peer.ask([self.place, self.name])["memory_bytes"]
        return None if found is None else int(found)


class Peer:
    """A process with one network in one dtype.

    Args:
      cases: of it.
      is_quick: whether the network is a tiny one.
    """

    def __init__(self, cases: Sequence[Case], *, is_quick: bool):
        self._cases = list(cases)
        self._outputs: dict[tuple[int, str], Any] = {}
        self._is_ready = False
        words = [json.dumps(cases), *["--quick"] * is_quick]
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.accelerator_torch", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # JAX only makes the weights there.
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self, ends: float) -> None:
        """Wait until all is compiled, or until a time by ``time.monotonic``."""
        import numpy as np

        while True:
            answer = self._answer(max(0.0, ends - time.monotonic()))
            if answer is None:
                print(f"PyTorch's {self._cases[0].network} is left out: not compiled in time.")
                return
            if "is_ready" in answer:
                self._is_ready = True
                return
            if "problem" in answer:
                print(f"{answer['name']} is left out: {answer['problem']}", flush=True)
                continue
            key = (answer["place"], answer["name"])
            self._outputs[key] = np.asarray(answer["output"], np.float32)

    def contenders(self, case: Case) -> dict[str, Contender]:
        """Return what there is of a case: {name: contender}."""
        place = self._cases.index(case)
        return {
            name: Contender(self, place, name, output)
            for (of, name), output in self._outputs.items()
            if of == place and self._is_ready
        }

    def ask(self, question: list[Any]) -> dict[str, Any]:
        """Send a question and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(question) + "\n").encode())
        self._process.stdin.flush()
        answer = self._answer()
        if answer is None:
            raise SystemExit("PyTorch's process ended; what it said is above.")
        return answer

    def release(self) -> None:
        """Let it give back what memory it keeps for its next call."""
        self.ask([])

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def _answer(self, seconds: float | None = None) -> dict[str, Any] | None:
        """Return the next line; None at the end of the process, or after so many seconds."""
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        return json.loads(line) if line else None


def start_peers(cases: Sequence[Case], *, is_quick: bool) -> dict[tuple[str, str], Peer]:
    """Start a process for each network and dtype of some cases; return them by these two."""
    kinds = dict.fromkeys((case.network, case.dtype) for case in cases)
    return {
        kind: Peer(
            [case for case in cases if (case.network, case.dtype) == kind], is_quick=is_quick
        )
        for kind in kinds
    }


def main(argv: Sequence[str]) -> None:
    """Be a process of PyTorch: compute every form once, then answer questions."""
    # Libraries print to standard output, which is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    calls: dict[tuple[int, str], Callable[[], Any]] = {}
    cases = [Case(*words) for words in json.loads(argv[0])]
    for place, case in enumerate(cases):
        for name in (*EAGER, COMPILED):
            try:
                call = _call(case, name, is_quick="--quick" in argv)
                output = call().detach().float().cpu().tolist()
            except Exception as error:
                problem = f"{type(error).__name__} {str(error).strip()[:200]}"
                answer(name=f"{name} of {case}", problem=problem)
                continue
            calls[place, name] = call
            _release()
            answer(place=place, name=name, output=output)
    answer(is_ready=True)
    for line in sys.stdin:
        words = json.loads(line)
        answer(**(_measured(calls[words[0], words[1]]) if words else _release()))


def _call(case: Case, name: str, *, is_quick: bool) -> Callable[[], Any]:
    """Return a call of one form that returns logits or the loss, and has waited for the card."""
    import torch

    from benchmarks.networks import bind
    from benchmarks.torch_peers import make_peer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # PyTorch's fastest settings; JAX multiplies float32 as tf32 by default, too.
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    is_last = name != EAGER[0]
    layout = torch.channels_last if is_last else torch.contiguous_format
    images, labels = batch(case, is_quick=is_quick)
    placed = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    placed, targets = placed.to(device), torch.from_numpy(labels).long().to(device)
    network = make_peer(
        case.network,
        build(case, "xla", is_quick=is_quick),
        **(
            {} if case.network.startswith("van_") else architecture(case.network, is_quick=is_quick)
        ),
    )
    network = network.to(device, memory_format=layout).train(case.mode == "train")
    run = torch.compile(network, dynamic=False) if name == COMPILED else network
    return bind(_computed, run, list(network.parameters()), placed, targets, case)


def _computed(run: Any, parameters: Any, images: Any, targets: Any, case: Case) -> Any:
    import torch

    is_bfloat16 = case.dtype == "bfloat16"
    device = images.device.type
    if case.mode == "train":
        with torch.autocast(device, torch.bfloat16, enabled=is_bfloat16):
            out = torch.nn.functional.cross_entropy(run(images), targets)
        torch.autograd.grad(out, parameters)
    else:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_bfloat16):
            out = run(images)
    if device == "cuda":
        torch.cuda.synchronize()
    return out


def _measured(call: Callable[[], Any]) -> dict[str, Any]:
    import torch

    is_gpu = torch.cuda.is_available()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    call()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "memory_bytes": torch.cuda.max_memory_allocated() if is_gpu else None,
    }


def _release() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {}


if __name__ == "__main__":
    main(sys.argv[1:])
