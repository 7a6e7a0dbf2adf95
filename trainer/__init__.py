import os
import signal
import sys

# Nothing here is compiled, but bitsandbytes asks for it while it is loaded, which loads the whole compiler: two seconds
# and 50 MiB of every process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# `python -m trainer...` comes here before it imports the program, which takes a second; an interrupt in it would end in
# dozens of lines of traceback. It ends the process without a word until the program heeds interrupts itself
# (trainer.processes: heed_interrupts, or Stop.listening).
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
