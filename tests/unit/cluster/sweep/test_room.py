import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from cluster.origins import HOME
from cluster.sweep.room import room


def test_each_run_has_a_place_of_its_own_and_the_next_one_waits_until_one_is_free(tmp_path: Path) -> None:
    order: list[str] = []

    def third() -> None:
        with room(tmp_path / "places", lambda: 2) as number:
            order.append(f"the third has place {number}")

    with room(tmp_path / "places", lambda: 2) as first:
        with room(tmp_path / "places", lambda: 2) as second:
            assert (first, second) == (0, 1)
            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(timeout=1.2)
            assert waiting.is_alive()
            order.append("the second goes")
        waiting.join(timeout=30)
    assert order == ["the second goes", "the third has place 1"]


def test_a_cluster_that_has_grown_has_more_places_for_those_that_wait(tmp_path: Path) -> None:
    sizes = iter([1, 1, 2])
    with ExitStack() as held:
        held.enter_context(room(tmp_path, lambda: 1))
        assert held.enter_context(room(tmp_path, lambda: next(sizes))) == 1


def test_the_place_of_a_process_that_was_killed_is_free_again(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from cluster.sweep.room import room\n"
        "with room(Path(sys.argv[1]), lambda: 1):\n    print('in', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=HOME, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    process.kill()
    process.communicate()
    with room(tmp_path, lambda: 1) as number:
        assert number == 0
