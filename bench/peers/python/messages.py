"""messages and messages-map; see bench/workloads/messages.c."""

from clock import tick


def make_message(number, size):
    return bytes((number & 255,)) * size


def weigh(message):
    return message[0] + message[-1]


def ring(kept, pushed, bytes_):
    messages = [None] * kept
    h = 0
    for i in range(pushed):
        at = i % kept
        if i >= kept:
            h = h * 31 + weigh(messages[at]) & 0xFFFFFFFF
        messages[at] = make_message(i, bytes_)
        if i % 8 == 0:
            tick()
    return h


def by_number(kept, pushed, bytes_):
    messages = {}
    h = 0
    for i in range(pushed):
        messages[i] = make_message(i, bytes_)
        if i >= kept:
            h = h * 31 + weigh(messages.pop(i - kept)) & 0xFFFFFFFF
        if i % 8 == 0:
            tick()
    return h
