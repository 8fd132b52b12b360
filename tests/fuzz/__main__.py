"""`make fuzz`: thousands of requests, others at each run. The options are those of `st run`."""

import sys

from tests.fuzz.run import run

done, _ = run("--max-examples=1500", *sys.argv[1:])
print(done.stdout)
sys.exit(done.returncode)
