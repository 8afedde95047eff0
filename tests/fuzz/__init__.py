"""A seeded fuzzer over every reader and the command lines.

    python tests/fuzz --count 10000 --seed 1     # report of all findings, by root cause
    python tests/fuzz --seed 1 --only 4711       # one input again

Input number N of seed S is always the same: a valid folder of one kind (seeds.py), of which one file is changed
(mutate.py). A target (targets.py) reads it in a process of its own (worker.py) with limits on time and memory. It must
return, or raise an InputError of one short line; nothing else may be written, and no code in a file may run.
Everything else is a finding (run.py), whose input is kept.
"""
