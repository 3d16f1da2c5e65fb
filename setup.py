"""The compiled modules; everything else stands in pyproject.toml.

FASTHTTP_SANITIZE=1 builds with ASan and UBSan, FASTHTTP_TRACE=1 with line
tracing for coverage. FASTHTTP_PROFILE=record builds what writes down, beside
its object files, which way its branches go; =use builds in the same place
what is laid out for that. Both want gcc. Each build needs `build_ext --force`
after another. CFLAGS, if set, replaces -O3 -g0, or -O1 -g of the first.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

sanitize = os.environ.get("FASTHTTP_SANITIZE") == "1"
trace = os.environ.get("FASTHTTP_TRACE") == "1"
profile = os.environ.get("FASTHTTP_PROFILE")

compile_args = ["-Wall", "-Wextra", "-Wno-unused-parameter"]
link_args = []
if "CFLAGS" not in os.environ:
    compile_args += ["-O1", "-g"] if sanitize else ["-O3", "-g0"]
if sanitize:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += [*flags, "-fno-omit-frame-pointer"]
    link_args += flags

if profile == "record":
    compile_args += ["-fprofile-generate", "-fprofile-update=atomic"]
    link_args.append("-fprofile-generate")
elif profile == "use":
    # What was not trained is compiled as without a profile.
    compile_args += ["-fprofile-use", "-fprofile-partial-training"]
    compile_args += ["-Werror=missing-profile", "-Wno-maybe-uninitialized"]
elif profile is not None:
    raise SystemExit(f"FASTHTTP_PROFILE is {profile!r}, not record or use")

macros = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

extensions = [
    Extension(
        source.removesuffix(".pyx").replace("/", "."),
        [source],
        include_dirs=["fasthttp"],
        depends=glob("fasthttp/*.h"),
        define_macros=macros if trace else [],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sorted(glob("fasthttp/_*.pyx"))
]

setup(
    options={
        "build_ext": {"force": profile is not None, "parallel": True},
    },
    ext_modules=cythonize(
        extensions,
        # Coverage wants the C files beside their sources.
        build_dir=None if trace else "build/cython",
        compiler_directives={
            "language_level": 3,
            "freethreading_compatible": True,
            "auto_pickle": False,
            "autotestdict": False,
            "linetrace": trace,
        },
    ),
)
