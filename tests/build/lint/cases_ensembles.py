"""Ensembles of the models in ``lab.PARTS``."""

from __future__ import annotations

from .lab import BATCHED, ONE, XY, Case, Files, ensemble, step

X, Y = {"x": "x"}, {"y": "y"}
ONE_STEP = step("part", X, Y)
CHAIN = ensemble(step("part", X, {"y": "t"}), step("part", {"x": "t"}, Y))
GOOD = ensemble(ONE_STEP)
JOIN = step("part_of_two", {"x": "t", "x2": "x"}, Y)


def sized(x: str, y: str = "4") -> str:
    return f'{BATCHED}input {{ name: "x" data_type: TYPE_FP32 dims: {x} }}\noutput {{ name: "y" data_type: TYPE_FP32 dims: {y} }}\n'


def more(kind: str) -> str:
    return f'{BATCHED}{XY}{kind} {{ name: "u" data_type: TYPE_FP32 dims: 4 }}\n'


EMPTY_ENSEMBLE: Files = {"1/.gitkeep": "", "config.pbtxt": f'platform: "ensemble"\n{BATCHED}{XY}'}
CASES = [
    Case("TK005", {"config.pbtxt": str(GOOD["config.pbtxt"])}, GOOD, "at least one version must be available", "ensemble"),
    Case("TK080", GOOD | {"config.pbtxt": str(GOOD["config.pbtxt"]).replace('platform: "ensemble"', 'backend: "ensemble"')},
         GOOD, "whose platform is not ensemble", "backend"),
    Case("TK080", EMPTY_ENSEMBLE, GOOD, "ensemble scheduling must be set", "no_steps"),
    Case("TK081", ensemble(ONE_STEP, config=BATCHED + XY + ONE), GOOD, "instance group should not be specified", "group"),
    Case("TK081", ensemble(ONE_STEP, config=BATCHED + XY + "optimization {}\n"), GOOD, "optimization should not", "optimize"),
    Case("TK081", ensemble(ONE_STEP, config=BATCHED + XY + 'model_warmup { name: "w" batch_size: 1 }\n'), GOOD,
         "model_warmup can not be specified", "warmup"),
    Case("TK082", ensemble(step("nowhere", X, Y)), GOOD, "not available or ambiguous: nowhere", "model"),
    Case("TK082", ensemble(step("part", X, Y, version=3)), GOOD, "required version 3 is not loaded", "version"),
    Case("TK082", ensemble(step("part", X, Y, version=None)), GOOD, "required version 0 is not loaded", "version_left_out"),
    Case("TK083", ensemble(step("tk083_bad", X, Y)), GOOD, "circular dependency between ensembles"),
    Case("TK084", ensemble(ONE_STEP, config=more("input")), GOOD, "ensemble input 'u'", "input"),
    Case("TK084", ensemble(ONE_STEP, config=more("output")), GOOD, "ensemble output 'u'", "output"),
    Case("TK084", ensemble(ONE_STEP, step("part", X, {"y": "nobody"})), CHAIN, "ensemble tensor 'nobody' is unused", "unused"),
    Case("TK084", ensemble(ONE_STEP, step("part", X, Y)), CHAIN, "can appear in an output map only once", "twice"),
    Case("TK084", ensemble(step("part", {"x": "ghost"}, Y), step("part", X, {"y": "ghost2"}),
                           config=BATCHED + XY + 'output { name: "ghost2" data_type: TYPE_FP32 dims: 4 }\n'),
         CHAIN, "'ghost', is not connected", "ghost"),
    Case("TK085", ensemble(step("part", {"x": "x", "q": "x"}, Y)), GOOD, "non-existing input q", "input"),
    Case("TK085", ensemble(step("part", X, {"q": "y"})), GOOD, "non-existing output q", "output"),
    Case("TK085", ensemble(step("part_of_two", X, Y)), ensemble(step("part_optional", X, Y)), "is not mapped to any", "unmapped"),
    Case("TK086", ensemble(step("part_of_ints", X, Y)), GOOD, "inconsistent data type", "type"),
    Case("TK086", ensemble(ONE_STEP, config=sized("5")), ensemble(ONE_STEP, config=sized("-1")), "inconsistent shape", "dims"),
    Case("TK086", ensemble(step("part_unbatched", X, Y), config=sized("5")), ensemble(step("part_unbatched", X, Y)),
         "inconsistent shape", "unbatched"),
    Case("TK087", ensemble(step("part_small", X, Y)), ensemble(step("part_completed", X, Y)), "only allows maximum batch size"),
    Case("TK088", ensemble(step("part_decoupled", X, {"y": "t"}), JOIN),
         ensemble(step("part_decoupled", X, {"y": "t"}), step("part", {"x": "t"}, Y)), "different decoupled models"),
]  # fmt: skip
