/* The plain case of `Socket.send`: a queue, what has one, and a method that queues. No state, but the names of two attributes.

   plain_messages.py says what the types do, and is the reference: what is not the plain case is left to Python. */
#include "../c_module.h"
#include <stddef.h>
#include <structmember.h>

/* ---- the queue */

static PyObject *corked_name, *wake_name;

typedef struct {
    PyObject_HEAD
    PyObject *entries, *transport;
    Py_ssize_t size, limit;
    unsigned long thread;
    char is_announced;
} Queue;

/* Bytes of a text's UTF-8; -1: it has none, or its characters are not in its object. */
static Py_ssize_t
utf8_size(PyObject *text)
{
    if (!PyUnicode_IS_COMPACT(text))
        return -1;
    Py_ssize_t length = PyUnicode_GET_LENGTH(text), size = length;
    if (PyUnicode_IS_ASCII(text))
        return size;
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 character = PyUnicode_READ(kind, data, i);
        if (0xD800 <= character && character <= 0xDFFF)
            return -1;
        size += (character > 0x7F) + (character > 0x7FF) + (character > 0xFFFF);
    }
    return size;
}

static Py_ssize_t
plain_size(PyObject *message)
{
    if (PyBytes_CheckExact(message))
        return PyBytes_GET_SIZE(message);
    return PyUnicode_CheckExact(message) ? utf8_size(message) : -1;
}

/* Wakes the transport, unless it is corked. Returns -1 with an exception. */
static int
wake_transport(Queue *queue)
{
    PyObject *corked = PyObject_GetAttr(queue->transport, corked_name);
    if (corked == NULL)
        return -1;
    int is_corked = corked == Py_True;
    Py_DECREF(corked);
    if (is_corked)
        return 0;
    PyObject *result = PyObject_CallMethodNoArgs(queue->transport, wake_name);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Queues a plain message. Returns 0 if nothing was done, because it is not the plain case; -1 with an exception. */
static int
queue_message(Queue *queue, PyObject *message)
{
    if (queue->size >= queue->limit || queue->is_announced || queue->thread != PyThread_get_thread_ident())
        return 0;
    Py_ssize_t size = plain_size(message);
    if (size < 0)
        return 0;
    if (queue->entries == NULL || queue->transport == NULL || !PyList_CheckExact(queue->entries)) {
        PyErr_SetString(PyExc_AttributeError, "the write buffer has no list of entries, or no transport");
        return -1;
    }
    if (PyList_Append(queue->entries, message))
        return -1;
    queue->size += size;
    return wake_transport(queue) ? -1 : 1;
}

static PyObject *
put_message(PyObject *self, PyObject *message)
{
    int done = queue_message((Queue *)self, message);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

static int
traverse_queue(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Queue *)self)->entries);
    Py_VISIT(((Queue *)self)->transport);
    return 0;
}

static int
clear_queue(PyObject *self)
{
    Py_CLEAR(((Queue *)self)->entries);
    Py_CLEAR(((Queue *)self)->transport);
    return 0;
}

static void
deallocate_queue(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)clear_queue(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef queue_members[] = {
    {"entries", T_OBJECT_EX, offsetof(Queue, entries), 0, NULL},
    {"_transport", T_OBJECT_EX, offsetof(Queue, transport), 0, NULL},
    {"size", T_PYSSIZET, offsetof(Queue, size), 0, NULL},
    {"limit", T_PYSSIZET, offsetof(Queue, limit), 0, NULL},
    {"_thread", T_ULONG, offsetof(Queue, thread), 0, NULL},
    {"_is_announced", T_BOOL, offsetof(Queue, is_announced), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef queue_methods[] = {
    {"put_message", put_message, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject queue_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "engineio_wsgi.session.c_plain_messages.MessageQueue",
    .tp_basicsize = sizeof(Queue),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = deallocate_queue,
    .tp_traverse = traverse_queue,
    .tp_clear = clear_queue,
    .tp_members = queue_members,
    .tp_methods = queue_methods,
};

/* ---- what has a queue, and a method that queues */

typedef struct {
    PyObject_HEAD
    PyObject *queue;
} Sender;

static int
traverse_sender(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Sender *)self)->queue);
    return 0;
}

static int
clear_sender(PyObject *self)
{
    Py_CLEAR(((Sender *)self)->queue);
    return 0;
}

static void
deallocate_sender(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)clear_sender(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef sender_members[] = {
    {"_queue", T_OBJECT_EX, offsetof(Sender, queue), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject sender_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "engineio_wsgi.session.c_plain_messages.MessageSender",
    .tp_basicsize = sizeof(Sender),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = deallocate_sender,
    .tp_traverse = traverse_sender,
    .tp_clear = clear_sender,
    .tp_members = sender_members,
};

typedef struct {
    PyObject_HEAD
    PyObject *function;
    vectorcallfunc call;
} Method;

static PyObject *
call_method(PyObject *self, PyObject *const *arguments, size_t flags, PyObject *names)
{
    if (PyVectorcall_NARGS(flags) == 2 && names == NULL && PyObject_TypeCheck(arguments[0], &sender_type)) {
        PyObject *queue = ((Sender *)arguments[0])->queue;
        int done = queue != NULL && PyObject_TypeCheck(queue, &queue_type) ? queue_message((Queue *)queue, arguments[1]) : 0;
        if (done)
            return done < 0 ? NULL : Py_NewRef(arguments[0]);
    }
    return PyObject_Vectorcall(((Method *)self)->function, arguments, flags, names);
}

static PyObject *
make_method(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    PyObject *function;
    if (names != NULL || !PyArg_ParseTuple(arguments, "O:plain_first", &function))
        return NULL;
    Method *method = (Method *)type->tp_alloc(type, 0);
    if (method == NULL)
        return NULL;
    method->function = Py_NewRef(function);
    method->call = call_method;
    return (PyObject *)method;
}

static PyObject *
bind_method(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

/* Name, docstring and signature are those of the function. */
static PyObject *
get_of_function(PyObject *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr(self, name);
    if (found != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return found;
    PyErr_Clear();
    return PyObject_GetAttr(((Method *)self)->function, name);
}

static PyObject *
get_docstring(PyObject *self, void *Py_UNUSED(closure))
{
    return PyObject_GetAttrString(((Method *)self)->function, "__doc__");
}

static int
traverse_method(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Method *)self)->function);
    return 0;
}

static int
clear_method(PyObject *self)
{
    Py_CLEAR(((Method *)self)->function);
    return 0;
}

static void
deallocate_method(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    (void)clear_method(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef method_members[] = {
    {"__wrapped__", T_OBJECT_EX, offsetof(Method, function), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef method_getters[] = {
    {"__doc__", get_docstring, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject method_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "engineio_wsgi.session.c_plain_messages.plain_first",
    .tp_basicsize = sizeof(Method),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_new = make_method,
    .tp_dealloc = deallocate_method,
    .tp_traverse = traverse_method,
    .tp_clear = clear_method,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Method, call),
    .tp_descr_get = bind_method,
    .tp_getattro = get_of_function,
    .tp_members = method_members,
    .tp_getset = method_getters,
};

/* ---- the module */

static int
add_types(PyObject *module)
{
    corked_name = PyUnicode_InternFromString("corked");
    wake_name = PyUnicode_InternFromString("wake");
    if (corked_name == NULL || wake_name == NULL)
        return -1;
    PyTypeObject *types[] = {&queue_type, &sender_type, &method_type};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]))
            return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_types}, LAST_SLOTS};

MODULE(c_plain_messages, "engineio_wsgi.session.c_plain_messages", NULL, slots)
