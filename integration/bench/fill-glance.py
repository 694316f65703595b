"""Fills Glance's database: fill-glance.py FILE NUMBER copies the newest image."""
import datetime
import sqlite3
import sys
import uuid

db = sqlite3.connect(sys.argv[1], timeout=60)
db.row_factory = sqlite3.Row
model = dict(db.execute("SELECT * FROM images WHERE deleted = 0 ORDER BY created_at DESC LIMIT 1").fetchone())
columns = list(model)
now = datetime.datetime.utcnow()


def rows():
    for i in range(int(sys.argv[2])):
        at = str(now - datetime.timedelta(seconds=i + 1))
        yield tuple(dict(model, id=str(uuid.uuid4()), name="image %d" % i, created_at=at, updated_at=at)[c] for c in columns)


with db:
    db.executemany("INSERT INTO images (%s) VALUES (%s)" % (", ".join(columns), ", ".join("?" * len(columns))), rows())
