"""The packages of the wheel, and what Beam's `--setup_file` needs; metadata is in setup.cfg."""

from setuptools import find_packages, setup

# Names as general as these never land in site-packages: the wheel has them in fcnseg.jobs.
JOBS = ("pipelines", "pipelines.flink", "serving", "tuning")

setup(
    packages=[
        *find_packages(include=["fcnseg", "fcnseg.*"]),
        *(f"fcnseg.jobs.{job}" for job in JOBS),
    ],
    package_dir={f"fcnseg.jobs.{job}": job.replace(".", "/") for job in JOBS},
)
