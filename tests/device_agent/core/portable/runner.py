"""Runs the test functions of one file in this interpreter and reports every one: `runner.py MODULE`.

Prints `ok NAME` or `FAILED NAME` with the reason, and exits 1 when one failed. Works in the MicroPython VM, which has
no pytest.
"""

import gc
import sys


def run(name):
    """Run all `test_*` functions of a module; returns (passed, failed)."""
    module = __import__(name, None, None, ["*"])
    passed = failed = 0
    for function in sorted(item for item in dir(module) if item.startswith("test_")):
        gc.collect()
        try:
            getattr(module, function)()
            passed += 1
            print("ok", function)
        except Exception as error:  # noqa: BLE001  whatever fails is to be reported
            failed += 1
            print("FAILED", function)
            if hasattr(sys, "print_exception"):
                sys.print_exception(error)
    return passed, failed


if __name__ == "__main__":
    sys.path.insert(0, ".")
    total = run(sys.argv[1])
    print("%d passed, %d failed" % total)
    sys.exit(1 if total[1] or not total[0] else 0)
