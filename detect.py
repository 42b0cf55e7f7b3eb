"""Finds objects in pictures, draws them, and writes labels.

python detect.py --source photos --names data/mine/mine.names
python detect.py --source 'photos/**/*.jpg' --save_labels darknet --no_pictures
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("detect"))

from darkslim.commands.detect_command import main, parser  # noqa: F401 - for `import detect`
