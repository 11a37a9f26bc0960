"""Everything that is fuzzed."""

from tests.rigs.fuzz.target import Target
from tests.rigs.fuzz.targets import answers, calls, frames, logins, sockjs, streams, words

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        frames.FRAMES,
        frames.DEFLATE,
        streams.STREAMS,
        answers.UPGRADE,
        answers.PROXY,
        logins.LOGIN,
        sockjs.FRAMES,
        sockjs.ANSWER,
        calls.CALLS,
        words.TARGETS,
        words.OPTIONS,
        words.COMMAND,
        words.LINES,
    )
}
