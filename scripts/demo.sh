#!/bin/sh
# The demo behind `make demo`: a real server, a real model, a hundred candidates, through the Batch API.
set -eu

bin=${1:?usage: demo.sh VENV_BIN_FOLDER}
folder=demo
rm -rf "$folder" && mkdir -p "$folder"

echo "Getting the embedded model (98 MB, once) ..."
"$bin/gristmill" models pull smollm2-135m-instruct > /dev/null 2> "$folder/pull.log" || { cat "$folder/pull.log"; exit 1; }

echo "Starting the server ..."
"$bin/gristmill" serve --port 0 --data "$folder/data" 2> "$folder/server.log" &
server=$!
trap 'kill $server 2> /dev/null; wait $server 2> /dev/null || true' EXIT INT TERM
until url=$(sed -n 's/^Gristmill is ready: //p' "$folder/server.log") && [ -n "$url" ]; do
    kill -0 "$server" 2> /dev/null || { cat "$folder/server.log"; exit 1; }
    sleep 0.2
done

echo "Scoring 100 candidates by one rubric: POST $url/batches"
"$bin/python" examples/candidates/make_batch.py "$folder/candidates.jsonl"
batch=$("$bin/gristmill" batches submit "$folder/candidates.jsonl" --server "$url")
"$bin/gristmill" batches watch "$batch" --server "$url"
"$bin/gristmill" batches download "$batch" -o "$folder/answers.jsonl" --server "$url" > /dev/null

echo
"$bin/python" examples/candidates/show_scores.py "$folder/answers.jsonl"
echo
echo "The answers are in $folder/answers.jsonl. To serve your own: .venv/bin/gristmill serve"
