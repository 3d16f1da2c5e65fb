/* libFuzzer's entry points: an embedded Python that runs one harness.
 *
 * The program's name chooses the function of the module `harness`. It
 * raises for a broken promise, which ends the run as a crash would.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <signal.h>
#include <string.h>

PyMODINIT_FUNC PyInit_harness(void);

static PyObject *target;

static void
give_up(void)
{
    PyErr_Print();
    abort();
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *slash = strrchr((*argv)[0], '/');
    const char *name = slash ? slash + 1 : (*argv)[0];
    PyObject *module;
    PyConfig config;

    (void)argc;
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
    target = PyObject_GetAttrString(module, name);
    if (target == NULL)
        give_up();
    Py_DECREF(module);
    /* Else Ctrl-C would be an exception, which looks like a finding. */
    PyOS_setsig(SIGINT, SIG_DFL);
    return 0;
}

int
LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    PyObject *result = PyObject_CallFunction(
        target, "y#", (const char *)data, (Py_ssize_t)size);
    if (result == NULL)
        give_up();
    Py_DECREF(result);
    return 0;
}
