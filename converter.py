"""Turns an annotated data set into Darknet's: images, labels, lists, names and a `.data` file.

python converter.py                          data/hand_dataset (the Oxford hand data set) -> data/
python converter.py --download               fetches the official archive first
python converter.py --generate 1000          draws that many pictures of hands first, in the same layout
python converter.py --format voc --input VOC2007 --output data/voc
python converter.py --anchors 6 --model_def config/yolov3-tiny-hand.cfg
"""

from __future__ import annotations

from darkslim.commands import script

if __name__ == "__main__":
    raise SystemExit(script("converter"))

from darkslim.commands.converter_command import main, parser  # noqa: F401 - for `import converter`
