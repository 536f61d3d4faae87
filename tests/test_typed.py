"""`import dreamfusion as df` is typed: a checker of types sees every name, and what is wrong with a call."""

import json
import re
import subprocess
import sys
from pathlib import Path

USER = Path(__file__).with_name("typed_user.py")


def test_a_checker_of_types_sees_the_names_and_the_mistakes():
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(USER)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=USER.parents[1], check=False)
    found = {
        each["range"]["start"]["line"] + 1
        for each in json.loads(answer.stdout)["generalDiagnostics"]
        if each["severity"] == "error"
    }
    lines = USER.read_text("utf-8").splitlines()
    assert found == {number for number, line in enumerate(lines, start=1) if re.search("# wrong", line)}
