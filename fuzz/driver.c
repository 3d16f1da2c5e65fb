/* libFuzzer's entry points: an embedded Python that runs one harness.
 *
 * The program's name chooses the function of the module `harness`. It
 * raises for a broken promise, which ends the run as a crash would. With
 * the argument --leaks each input has to leave as much memory as it found.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <signal.h>
#include <string.h>

/* One input in so many has each Python object in memory of its own. */
#define GUARDED_SHARE 16
/* For caches, and then for what a leak adds up to. */
#define FIRST_RUNS 5
#define FURTHER_RUNS 50

PyMODINIT_FUNC PyInit_harness(void);

static PyObject *target;
static PyMemAllocatorEx raw, small;
static int guarded, leaks;
static size_t blocks;

static void
give_up(void)
{
    PyErr_Print();
    abort();
}

/* ASan sees into malloc's memory only: the server's own buffers are always
 * there, Python's objects, which take most of the time, sometimes. What
 * `small` has not made it hands on to malloc's family. */

static PyMemAllocatorEx *
source(void *is_object)
{
    return is_object && !guarded ? &small : &raw;
}

static void *
counted_malloc(void *is_object, size_t size)
{
    PyMemAllocatorEx *from = source(is_object);
    void *block = from->malloc(from->ctx, size);
    blocks += block != NULL;
    return block;
}

static void *
counted_calloc(void *is_object, size_t count, size_t size)
{
    PyMemAllocatorEx *from = source(is_object);
    void *block = from->calloc(from->ctx, count, size);
    blocks += block != NULL;
    return block;
}

static void *
counted_realloc(void *is_object, void *block, size_t size)
{
    if (block == NULL)
        return counted_malloc(is_object, size);
    return small.realloc(small.ctx, block, size);
}

static void
counted_free(void *is_object, void *block)
{
    (void)is_object;
    blocks -= block != NULL;
    small.free(small.ctx, block);
}

static void
set_allocators(void)
{
    PyMemAllocatorEx ours = {
        NULL, counted_malloc, counted_calloc, counted_realloc, counted_free,
    };
    PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw);
    PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &small);
    PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &ours);
    ours.ctx = &small;
    PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &ours);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *slash = strrchr((*argv)[0], '/');
    const char *name = slash ? slash + 1 : (*argv)[0];
    PyPreConfig before;
    PyConfig config;
    PyObject *module;

    for (int index = 1; index < *argc; index++)
        leaks |= strcmp((*argv)[index], "--leaks") == 0;
    PyPreConfig_InitPythonConfig(&before);
    if (PyStatus_Exception(Py_PreInitialize(&before)))
        abort();
    set_allocators();
    PyImport_AppendInittab("harness", PyInit_harness);
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    PyConfig_SetBytesString(&config, &config.program_name, PYTHON);
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        abort();
    PyConfig_Clear(&config);
    module = PyImport_ImportModule("harness");
    if (module == NULL)
        give_up();
    target = PyObject_CallMethod(module, "prepare", "s", name);
    if (target == NULL)
        give_up();
    Py_DECREF(module);
    /* Else Ctrl-C would be an exception, which looks like a finding. */
    PyOS_setsig(SIGINT, SIG_DFL);
    return 0;
}

static void
run(const unsigned char *data, size_t size)
{
    PyObject *result;
    unsigned seed = 2166136261;

    for (size_t at = 0; at < size; at++)
        seed = (seed ^ data[at]) * 16777619;
    seed ^= seed >> 15;
    guarded = (seed >> 8) % GUARDED_SHARE == 0;
    result = PyObject_CallFunction(
        target, "y#I", (const char *)data, (Py_ssize_t)size, seed);
    if (result == NULL)
        give_up();
    Py_DECREF(result);
}

static size_t
blocks_after(int runs, const unsigned char *data, size_t size)
{
    for (int count = 0; count < runs; count++)
        run(data, size);
    PyGC_Collect();
    return blocks;
}

int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    size_t before, after;

    if (!leaks) {
        run(data, size);
        return 0;
    }
    before = blocks_after(FIRST_RUNS, data, size);
    after = blocks_after(FURTHER_RUNS, data, size);
    if (after >= before + FURTHER_RUNS) {
        fprintf(stderr, "leak: %zu blocks, after %d runs more %zu\n",
                before, FURTHER_RUNS, after);
        abort();
    }
    return 0;
}
