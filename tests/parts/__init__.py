"""The parts of the test suite, run by tests/run: functions that take a Log and return their checks."""
