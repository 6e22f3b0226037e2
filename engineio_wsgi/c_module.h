/* How a part in C becomes a module of Python. Its file includes this instead of Python.h, and ends with its slots and MODULE. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The end of a module's slots. */
#ifdef Py_GIL_DISABLED
#define LAST_SLOTS {Py_mod_gil, Py_MOD_GIL_USED}, {0, NULL}
#else
#define LAST_SLOTS {0, NULL}
#endif

/* The function that the interpreter calls to import `name`. `functions` is a table of methods, or NULL. */
#define MODULE(name, full_name, functions, slots)                                                           \
    static struct PyModuleDef definition = {                                                                \
        PyModuleDef_HEAD_INIT, full_name, NULL, 0, functions, slots, NULL, NULL, NULL,                      \
    };                                                                                                      \
    PyMODINIT_FUNC PyInit_##name(void)                                                                      \
    {                                                                                                       \
        return PyModuleDef_Init(&definition);                                                               \
    }
