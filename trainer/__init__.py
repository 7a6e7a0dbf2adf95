import os

# Nothing here is compiled, but bitsandbytes asks for it while it is loaded, which loads the whole compiler: two seconds
# and 50 MiB of every process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
